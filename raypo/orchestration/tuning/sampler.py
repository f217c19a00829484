"""What to try next: a pure function of the space, the seed, and what was tried so far.

Nothing is kept between two proposals, so that a search that goes on in another process proposes
what it would have proposed in the first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from raypo.config import SearchRange
from raypo.io.files import value_hash
from raypo.orchestration.tuning.search_space import Space

Sampler = Literal["tpe", "random", "grid"]
_ATTEMPTS = 100  # at settings that were not tried yet
_GUIDED_ATTEMPTS = 20  # of these by TPE; then by lot


@dataclass(frozen=True)
class Observation:
    """A trial as the sampler sees it.

    Attributes:
        settings: by dotted key.
        score: what is made large; None of a failed trial, and while it runs.
        ended: whether it has.
    """

    settings: Mapping[str, Any]
    score: float | None
    ended: bool


def number_of_trials(space: Space, sampler: Sampler, trials: int) -> int:
    """How many trials a search has at most: all combinations of a grid, else `trials`."""
    if sampler != "grid":
        return trials
    return math.prod(len(choice) for choice in space.values() if isinstance(choice, tuple))


def propose(
    space: Space, sampler: Sampler, seed: int, tried: Sequence[Observation], trials: int
) -> dict[str, Any] | None:
    """Settings of trial number `len(tried)`, other than all before it; None where none are left.

    Args:
        space: settings' values.
        sampler: TPE is Optuna's (Bergstra et al. 2011), blind for the first third of the trials (3
            to 10 of them), and told that running trials are poor so that it looks elsewhere.
        seed: with it, the same space and the same trials before, the proposal is the same.
        tried: trials so far, in order.
        trials: of the whole search.
    """
    if sampler == "grid":
        combinations = itertools.product(*(tuple(choice) for choice in space.values()))
        chosen = next(itertools.islice(combinations, len(tried), None), None)
        return None if chosen is None else dict(zip(space, chosen, strict=True))
    distributions = {key: _distribution(choice) for key, choice in space.items()}
    known = [dict(one.settings) for one in tried]
    for attempt in range(_ATTEMPTS):
        own_seed = int(value_hash([seed, len(tried), attempt])[:8], 16)
        by_lot = sampler == "random" or attempt >= _GUIDED_ATTEMPTS
        study = _study(_by_lot(own_seed) if by_lot else _tpe(own_seed, trials))
        for one in tried:
            study.add_trial(_frozen(one, distributions))
        settings = dict(study.ask(distributions).params)
        if settings not in known:
            return settings
    return None


def _study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    # Says of every study on stderr that it was made.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _by_lot(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int, trials: int) -> optuna.samplers.BaseSampler:
    blind = min(10, max(3, trials // 3))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=blind, constant_liar=True)


def _frozen(
    one: Observation, distributions: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    if not one.ended:
        state = TrialState.RUNNING
    else:
        state = TrialState.FAIL if one.score is None else TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state,
        value=one.score if state is TrialState.COMPLETE else None,
        params=dict(one.settings),
        distributions=distributions,
    )


def _distribution(choice: tuple[Any, ...] | SearchRange) -> BaseDistribution:
    if not isinstance(choice, SearchRange):
        return CategoricalDistribution(choice)
    # A range ends with the last number that its steps reach.
    if isinstance(choice.low, int):
        step = int(choice.step or 1)
        high = choice.low + int(choice.high - choice.low) // step * step
        return IntDistribution(choice.low, high, log=choice.log, step=step)
    end = choice.high
    if choice.step is not None:
        steps = math.floor((choice.high - choice.low) / choice.step + 1e-9)
        end = round(choice.low + steps * choice.step, 12)
    return FloatDistribution(choice.low, end, log=choice.log, step=choice.step)

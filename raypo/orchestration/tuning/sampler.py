"""Settings to try next: a pure function of the space, the seed and the trials so far.

Optuna proposes, from a study in memory that is made anew of the observations for every proposal.
Neither a stored study nor Ray Tune's OptunaSearch replaces this (Optuna 5.0, Ray 2.60):

- A stored study does not hold its sampler's random state. Opened again with the same seed, a random
  sampler repeats the proposals it began with, and TPE does not propose what it would have
  proposed undisturbed. Restoring the state means unpickling a file of the run folder.
- OptunaSearch takes a trial's last value for its score, not its best one, raises a KeyError on a
  report without a score, and cannot end a trial that another process proposed.
- Neither excludes settings that were tried. Optuna's grid is shuffled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from raypo.config import SearchRange
from raypo.evaluation.search_report.trials import SettingValue
from raypo.io.files import value_hash
from raypo.orchestration.tuning.search_space import Choice, Space

_ATTEMPTS = 100  # to find settings that were not tried yet
_TPE_ATTEMPTS = 20  # of these with TPE; the others are random


@dataclass(frozen=True)
class Observation:
    """A trial as the sampler sees it.

    Attributes:
        settings: by dotted key.
        score: to be maximised; None if the trial failed or has no score yet.
        ended: whether the trial has ended.
    """

    settings: Mapping[str, SettingValue]
    score: float | None
    ended: bool


@dataclass(frozen=True)
class SettingsSampler:
    """Proposes the settings of one trial after another.

    Attributes:
        space: values of each setting, by dotted key.
        method: `tpe` is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011). The first
            third of the trials, 3 to 10 of them, are random. Running trials count as poor ones, so
            that concurrent trials differ. `random` draws every setting; `grid` takes all
            combinations in order.
        seed: the same seed, space and observations give the same proposal.
        trials: of the whole search; a grid ignores it.
    """

    space: Space
    method: Literal["tpe", "random", "grid"]
    seed: int
    trials: int

    @property
    def num_trials(self) -> int:
        """Trials of the whole search at most: all combinations of a grid, else `trials`."""
        if self.method != "grid":
            return self.trials
        return math.prod(len(choice) for choice in self._lists)

    def propose(self, observations: Sequence[Observation]) -> dict[str, SettingValue] | None:
        """Settings that no observation has; None if there are none left.

        Args:
            observations: all trials so far, in order.
        """
        if self.method == "grid":
            combinations = itertools.product(*self._lists)
            chosen = next(itertools.islice(combinations, len(observations), None), None)
            return None if chosen is None else dict(zip(self.space, chosen, strict=True))
        distributions = {key: _distribution(choice) for key, choice in self.space.items()}
        tried = [dict(observation.settings) for observation in observations]
        for attempt in range(_ATTEMPTS):
            study = _study(self._optuna_sampler(len(observations), attempt))
            study.add_trials([_optuna_trial(one, distributions) for one in observations])
            settings = dict(study.ask(distributions).params)
            if settings not in tried:
                return settings
        return None

    @property
    def _lists(self) -> list[tuple[SettingValue, ...]]:
        return [choice for choice in self.space.values() if isinstance(choice, tuple)]

    def _optuna_sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = int(value_hash([self.seed, number, attempt])[:8], 16)
        if self.method == "random" or attempt >= _TPE_ATTEMPTS:
            return optuna.samplers.RandomSampler(seed=seed)
        num_random = min(10, max(3, self.trials // 3))
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=num_random, constant_liar=True
        )


def _study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line on stderr for every study
    return optuna.create_study(direction="maximize", sampler=sampler)


def _optuna_trial(
    observation: Observation, distributions: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    if not observation.ended:
        state = TrialState.RUNNING
    else:
        state = TrialState.FAIL if observation.score is None else TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state,
        value=observation.score if state is TrialState.COMPLETE else None,
        params=dict(observation.settings),
        distributions=distributions,
    )


def _distribution(choice: Choice) -> BaseDistribution:
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

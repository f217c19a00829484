"""Named objectives: a preset is a few lines over the parts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from raypo.objectives.aggregation import softmax
from raypo.objectives.margins import DynamicMargin, FixedMargin
from raypo.objectives.objective import Objective
from raypo.objectives.rewards import REWARDS
from raypo.objectives.sft import SftObjective
from raypo.objectives.sharing import Own, Shared, SharingGradient, Similarity


def _sft() -> SftObjective:
    """Token-mean negative log-likelihood of the target's title."""
    return SftObjective()


def _s_dpo(beta: float = 1.0) -> Objective:
    """S-DPO (arXiv 2406.09215): softmax over own negatives, against the reference."""
    return Objective("s-dpo", REWARDS["reference"], Own(), softmax, FixedMargin(0.0), beta)


def _sims_dpo(beta: float = 1.0, gamma: float = 0.0, length_normalised: bool = False) -> Objective:
    """S-DPO without a reference: NAPO without sharing and margin (arXiv 2508.09653, Table 3)."""
    reward = REWARDS["free-normalised" if length_normalised else "free"]
    return Objective("sims-dpo", reward, Own(), softmax, FixedMargin(gamma), beta)


def _napo(
    beta: float = 1.0,
    gamma: float = 1.0,
    alpha: float = 0.3,
    rho: float = 0.7,
    momentum: float = 0.9,
    sharing_gradient: SharingGradient = "all",
    mask_collisions: bool = True,
    similarity: Similarity = "inner",
    length_normalised: bool = False,
    dynamic_margin: bool = True,
    confidence_start: float | None = None,
) -> Objective:
    """NAPO (arXiv 2508.09653); its ablations (Table 3) are options, rho = 0 is without sharing."""
    negatives = Shared(rho, sharing_gradient, mask_collisions, similarity) if rho else Own()
    dynamic = DynamicMargin(gamma, alpha, momentum, confidence_start)
    margin = dynamic if dynamic_margin else FixedMargin(gamma)
    reward = REWARDS["free-normalised" if length_normalised else "free"]
    return Objective("napo", reward, negatives, softmax, margin, beta)


PRESETS: Mapping[str, Callable[..., Objective | SftObjective]] = MappingProxyType(
    {"sft": _sft, "s-dpo": _s_dpo, "sims-dpo": _sims_dpo, "napo": _napo}
)

_CHOICES = {"sharing_gradient": ("all", "local", "own"), "similarity": ("inner", "cosine")}


def available_objectives() -> list[str]:
    """Names that `build_objective` takes."""
    return list(PRESETS)


def build_objective(
    name: str, *, process_group: Any = None, **options: Any
) -> Objective | SftObjective:
    """Build a named objective.

    Args:
        name: one of `available_objectives()`.
        process_group: torch.distributed group whose batches form the global batch; None is the
            default group where torch.distributed is initialised.
        **options: the preset's parameters (beta, gamma, alpha, rho, momentum, …), each meaning what
            the preset's own paper calls so.

    Raises:
        ValueError: unknown name or option (with what is known), or a value out of range.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(PRESETS)
        raise ValueError(f"unknown objective {name!r}; {hint}")
    known = inspect.signature(PRESETS[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"objective {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
        _check(option, value)
    objective = PRESETS[name](**options)
    objective.process_group = process_group
    return objective


def _check(option: str, value: Any) -> None:
    if option in _CHOICES and value not in _CHOICES[option]:
        raise ValueError(f"{option}: expected one of {', '.join(_CHOICES[option])}, got {value!r}")
    if option == "beta" and not value > 0:
        raise ValueError(f"beta: expected a number above 0, got {value!r}")
    if option in ("rho", "momentum") and not 0 <= value <= 1:
        raise ValueError(f"{option}: expected a number from 0 to 1, got {value!r}")

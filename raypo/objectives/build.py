"""Building objectives by a preset's name, or from parts that a user names."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from raypo.objectives.aggregation import AGGREGATIONS
from raypo.objectives.links import Logistic, Smoothed
from raypo.objectives.margins import ConfidenceMargin, FixedMargin, InstanceMargin
from raypo.objectives.objective import Objective, refuse_meaningless
from raypo.objectives.presets import PRESETS
from raypo.objectives.rewards import REWARDS
from raypo.objectives.selection import All, Boundary, Selection, TopK
from raypo.objectives.sft import SftObjective
from raypo.objectives.sharing import Own, Shared
from raypo.objectives.temperature import BetaPerBatch, BetaPerNegative, FixedBeta

_SELECTIONS: Mapping[str, Callable[..., Selection]] = {
    "all": All,
    "boundary": lambda: Boundary("boundary"),
    "violations": lambda: Boundary("violations"),
    "clusters": lambda: Boundary("clusters"),
    "top-k": TopK,
}
_PARTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "reward": {kind: lambda reward=reward: reward for kind, reward in REWARDS.items()},
    "negatives": {"own": Own, "shared": Shared},
    "selection": _SELECTIONS,
    "temperature": {
        "fixed": FixedBeta,
        "per-negative": BetaPerNegative,
        "per-batch": BetaPerBatch,
    },
    "aggregation": {kind: lambda kind=kind: kind for kind in AGGREGATIONS},
    "margin": {
        "none": FixedMargin,
        "fixed": FixedMargin,
        "napo": ConfidenceMargin,
        "alpha-dpo": InstanceMargin,
    },
    "link": {"logistic": Logistic, "smoothed": Smoothed},
}
# What no user sets: which part it is, and what a preset's composition says by another name.
_NOT_OPTIONS = {"kind", "needs_scores", "measure", "statistics", "reward"}
_CHOICES = {
    "sharing_gradient": ("all", "local", "own"),
    "similarity": ("inner", "cosine"),
    "selection": tuple(_SELECTIONS),
}
_SWITCHES = ("mask_collisions", "length_normalised", "dynamic_margin", "dynamic_beta")
# Options that every preference preset has, beside its own.
_COMMON: Mapping[str, Any] = {"selection": None, "top_k": 5}


def available_objectives() -> list[str]:
    """Names that `build_objective` takes."""
    return list(PRESETS)


def preset_options(name: str) -> dict[str, Any]:
    """Options of a preset with their defaults; a `selection` of None is the preset's own."""
    signature = inspect.signature(PRESETS[name]).parameters
    options = {option: parameter.default for option, parameter in signature.items()}
    return options if name == "sft" else options | dict(_COMMON)


def build_objective(
    name: str, *, process_group: Any = None, **options: Any
) -> Objective | SftObjective:
    """Build a named objective.

    Args:
        name: one of `available_objectives()`.
        process_group: torch.distributed group whose batches form the global batch; None is the
            default group where torch.distributed is initialised.
        **options: the preset's parameters (beta, gamma, alpha, rho, momentum, …), each meaning what
            the preset's own paper calls so; `selection` (all, boundary, violations, clusters,
            top-k) and `top_k` go with every preference preset.

    Raises:
        ValueError: unknown name or option (with what is known), a value out of range, or a
            combination without meaning.
    """
    _known("objective", name, PRESETS)
    known = preset_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"objective {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
        check_value(option, value)
    selection, top_k = options.pop("selection", None), options.pop("top_k", _COMMON["top_k"])
    objective = PRESETS[name](**options)
    objective.process_group = process_group
    if isinstance(objective, Objective):
        if selection is not None:
            objective.selection = _selection(selection, top_k)
        refuse_meaningless(objective)
    return objective


def compose_objective(*, process_group: Any = None, **parts: Any) -> Objective:
    """Build an objective of one's own from its parts.

    Args:
        process_group: as for `build_objective`.
        **parts: reward, negatives, selection, temperature, aggregation, margin, link; each a kind
            (`"softmax"`) or a mapping with `kind` and that part's options
            (`{"kind": "shared", "rho": 0.5}`). `reward` and `aggregation` are needed, the others
            are own, all, fixed (beta 1), none and logistic unless given.

    Raises:
        ValueError: unknown part, kind or option (with what is known), a value out of range, or a
            combination without meaning.
    """
    for part in parts:
        _known("part", part, _PARTS)
    for needed in ("reward", "aggregation"):
        if needed not in parts:
            raise ValueError(f"{needed}: expected one of {', '.join(_PARTS[needed])}")
    built = {part: _build_part(part, given) for part, given in parts.items()}
    objective = Objective("composed", **built, process_group=process_group)
    refuse_meaningless(objective)
    return objective


def _build_part(part: str, given: Any) -> Any:
    options = {"kind": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or not isinstance(options.get("kind"), str):
        raise ValueError(
            f"{part}: expected a kind ({', '.join(_PARTS[part])}) or a mapping with `kind`, "
            f"got {given!r}"
        )
    kind = options["kind"]
    _known(part, kind, _PARTS[part])
    make = _PARTS[part][kind]
    known = [] if kind == "none" else _part_options(make)
    rest = {option: value for option, value in options.items() if option != "kind"}
    for option, value in rest.items():
        if option not in known:
            raise ValueError(
                f"{part} {kind!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
        check_value(option, value)
    return make(**rest)


def _part_options(make: Callable[..., Any]) -> list[str]:
    if not dataclasses.is_dataclass(make):
        return []
    return [each.name for each in dataclasses.fields(make) if each.name not in _NOT_OPTIONS]


def _selection(kind: str, top_k: int) -> Selection:
    return TopK(top_k) if kind == "top-k" else _SELECTIONS[kind]()


def _known(what: str, name: str, names: Mapping[str, Any]) -> None:
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(names)
        raise ValueError(f"unknown {what} {name!r}; {hint}")


def check_value(option: str, value: Any) -> None:
    """Raise ValueError for a value that the option cannot have."""
    if value is None or option == "oracle":
        return
    if option in _CHOICES:
        if value not in _CHOICES[option]:
            raise ValueError(
                f"{option}: expected one of {', '.join(_CHOICES[option])}, got {value!r}"
            )
    elif option in _SWITCHES:
        if not isinstance(value, bool):
            raise ValueError(f"{option}: expected true or false, got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{option}: expected a number, got {value!r}")
    elif option in ("beta", "tau") and not value > 0:
        raise ValueError(f"{option}: expected a number above 0, got {value!r}")
    elif option in ("rho", "momentum") and not 0 <= value <= 1:
        raise ValueError(f"{option}: expected a number from 0 to 1, got {value!r}")
    elif option == "eps_max" and not 0 <= value < 0.5:
        raise ValueError(f"eps_max: expected a number from 0 to below 0.5, got {value!r}")
    elif option in ("k", "top_k") and (value < 1 or int(value) != value):
        raise ValueError(f"{option}: expected a whole number above 0, got {value!r}")

"""Build an objective from a preset's name and options, or from parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raypo.objectives.aggregation import AGGREGATIONS
from raypo.objectives.composition import check_composition
from raypo.objectives.links import LINKS
from raypo.objectives.margins import MARGINS
from raypo.objectives.objective import Objective
from raypo.objectives.options import OptionError, options_of, require_known
from raypo.objectives.preset import Preset, SftPreset, parse_preset_options
from raypo.objectives.presets import PRESETS
from raypo.objectives.rewards import REWARDS
from raypo.objectives.selection import SELECTIONS
from raypo.objectives.sft import SftObjective
from raypo.objectives.sharing import NEGATIVE_SOURCES
from raypo.objectives.temperature import TEMPERATURES

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Part -> kind -> what makes it. A kind that is a class has that class's options; others have none.
_PARTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "reward": {kind: lambda reward=reward: reward for kind, reward in REWARDS.items()},
    "negatives": NEGATIVE_SOURCES,
    "selection": SELECTIONS,
    "temperature": TEMPERATURES,
    "aggregation": {kind: lambda kind=kind: kind for kind in AGGREGATIONS},
    "margin": MARGINS,
    "link": LINKS,
}


def available_objectives() -> list[str]:
    """Names that `build_objective` takes."""
    return list(PRESETS)


def preset_options(name: str) -> dict[str, object]:
    """Options of a preset with their defaults; a `selection` of None is the preset's own.

    Raises:
        OptionError: unknown name.
    """
    return {option: known.default for option, known in _preset(name).options().items()}


def parse_options(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """Convert a preset's options to their types: 4.0 of a whole number is 4.

    Args:
        name: one of `available_objectives()`.
        options: values by option.

    Raises:
        OptionError: unknown name or option, or a value that it does not take.
    """
    return parse_preset_options(name, _preset(name).options(), options)


def build_objective(
    name: str, *, process_group: ProcessGroup | None = None, **options: object
) -> Objective | SftObjective:
    """Build a named objective.

    Args:
        name: one of `available_objectives()`.
        process_group: torch.distributed group whose batches form the global batch; None is the
            default group where torch.distributed is initialised.
        **options: the options of the preset's parts (beta, gamma, alpha, rho, momentum, …), each
            with the meaning that it has in the preset's own paper. Every preference preset also has
            `selection` (all, boundary, violations, clusters, top-k) and `top_k`.

    Raises:
        OptionError: a ValueError for an unknown name or option (names the nearest known one), or
            for a value that an option does not take.
        ValueError: a combination of parts that no formula defines.
    """
    objective = _preset(name).build(name, parse_options(name, options))
    objective.process_group = process_group
    if isinstance(objective, Objective):
        check_composition(objective)
    return objective


def compose_objective(*, process_group: ProcessGroup | None = None, **parts: object) -> Objective:
    """Build an objective from its parts.

    Args:
        process_group: as for `build_objective`.
        **parts: reward, negatives, selection, temperature, aggregation, margin, link; each a kind
            (`"softmax"`) or a mapping with `kind` and that part's options
            (`{"kind": "shared", "rho": 0.5}`). `reward` and `aggregation` are required. The others
            are own, all, fixed (beta 1), none and logistic unless given.

    Raises:
        OptionError: a ValueError for an unknown part, kind or option (names the nearest known one),
            or for a value that an option does not take.
        ValueError: a combination of parts that no formula defines.
    """
    built = {}
    for part, parsed in parse_parts(parts).items():
        kind = parsed if isinstance(parsed, str) else str(parsed["kind"])
        options = {} if isinstance(parsed, str) else parsed
        make = _PARTS[part][kind]
        built[part] = make(**{name: options[name] for name in options if name != "kind"})
    objective = Objective("composed", **built, process_group=process_group)
    check_composition(objective)
    return objective


def parse_parts(parts: Mapping[str, object]) -> dict[str, str | dict[str, object]]:
    """Convert the options of parts to their types.

    Args:
        parts: as for `compose_objective`.

    Returns:
        Each part in the form that it was given in.

    Raises:
        OptionError: see `compose_objective`; the error's name is dotted, such as `negatives.rho`.
    """
    for part in parts:
        require_known(part, "unknown part", part, _PARTS)
    for required in ("reward", "aggregation"):
        if required not in parts:
            raise OptionError(required, f"expected one of {', '.join(_PARTS[required])}")
    return {part: _parse_part(part, given) for part, given in parts.items()}


def _parse_part(part: str, given: object) -> str | dict[str, object]:
    values = {"kind": given} if isinstance(given, str) else given
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        kinds = ", ".join(_PARTS[part])
        raise OptionError(
            part, f"expected a kind ({kinds}) or a mapping with `kind`, got {given!r}"
        )
    kind = values["kind"]
    require_known(part, f"unknown {part}", kind, _PARTS[part])
    if isinstance(given, str):
        return given
    make = _PARTS[part][kind]
    known = options_of(make) if isinstance(make, type) else {}
    parsed = {"kind": kind}
    for option in [name for name in values if name != "kind"]:
        dotted = f"{part}.{option}"
        require_known(dotted, f"{part} {kind!r} has no option", option, known)
        parsed[option] = known[option].parse(dotted, values[option])
    return parsed


def _preset(name: str) -> Preset | SftPreset:
    require_known("name", "unknown objective", name, PRESETS)
    return PRESETS[name]

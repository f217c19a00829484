"""The space of a search: every value is checked as the setting that it is, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypo.config import AlignConfig, SearchRange, TuneConfig, parse_config, with_settings
from raypo.config.paths import uri
from raypo.errors import InputError
from raypo.evaluation.search_report.trials import SettingValue
from raypo.training.job import check_inputs
from raypo.training.objective import make_objective, with_parsed_objective

# What all trials share, or what would make their scores incomparable.
_SHARED = (
    "data",
    "output",
    "recommender",
    "mlflow",
    "validation",
    "policy.model",
    "policy.adapter",
    "policy.lora",
    "policy.prompt",
    "cluster.launcher",
)
# Settings that can be checked without the data set.
_CHECKED_ALONE = ("optimiser", "objective")

# The values of one setting: a list, or a range.
Choice = tuple[SettingValue, ...] | SearchRange
# Choices by dotted key.
Space = Mapping[str, Choice]


def check_space(config: TuneConfig) -> Space:
    """Return the space with values of their settings' types: 4.0 negatives become 4.

    Raises:
        InputError: a key is no setting of alignment or is shared by all trials, a value is not
            allowed, or a range is given for a setting that is not a number.
    """
    make_objective(config.align, setting="align.objective")
    space: dict[str, Choice] = {}
    for given, choice in config.space.items():
        key = _flat(given)
        if key in space:
            raise InputError(f"space.{given}: the same setting as space.{key}")
        space[key] = _checked(config.align, key, choice)
    return space


def _flat(key: str) -> str:
    """`objective.options.rho` as it is dumped: `objective.rho`."""
    for group in ("objective.options.", "objective.parts."):
        key = key.replace(group, "objective.") if key.startswith(group) else key
    return key


def trial_values(
    align: AlignConfig, settings: Mapping[str, SettingValue], output: Path
) -> dict[str, Any]:
    """Values of `align` with a trial's settings and output folder, as JSON holds them."""
    values = with_settings(align.model_dump(mode="json"), settings, source="space")
    return values | {"output": uri(output)}


def _checked(align: AlignConfig, key: str, choice: Choice) -> Choice:
    if any(key == shared or key.startswith(f"{shared}.") for shared in _SHARED):
        raise InputError(
            f"space.{key}: all trials of a search share this; set align.{key}, and search again in "
            "another output folder for another value"
        )
    if isinstance(choice, SearchRange):
        return _checked_range(align, key, choice)
    values = tuple(_as_setting(align, key, value) for value in choice)
    for index, value in enumerate(values):
        if value in values[:index]:
            raise InputError(f"space.{key}: {value!r} is listed twice")
    return values


def _checked_range(align: AlignConfig, key: str, choice: SearchRange) -> SearchRange:
    low, high = (_as_setting(align, key, value) for value in (choice.low, choice.high))
    if isinstance(low, bool) or not isinstance(low, int | float):
        raise InputError(f"space.{key}: only numbers can have a range; list the values")
    if isinstance(low, int) and choice.step is not None and choice.step != int(choice.step):
        raise InputError(
            f"space.{key}: a range of integers needs an integer step, got {choice.step}"
        )
    return choice.model_copy(update={"low": low, "high": high})


def _as_setting(align: AlignConfig, key: str, value: SettingValue) -> SettingValue:
    """The value as AlignConfig parses it."""
    source = f"space.{key}"
    changed = with_settings(align.model_dump(mode="json"), {key: value}, source)
    config = parse_config(AlignConfig, changed, source=source)
    try:
        if key.split(".")[0] in _CHECKED_ALONE:
            config = with_parsed_objective(config)
        else:
            check_inputs(config)
    except InputError as error:
        raise InputError(f"{source}={value}: {error}") from None
    parsed: Any = config.model_dump(mode="json")
    for part in key.split("."):
        # An option of the objective that is None is not dumped: the preset's default holds.
        parsed = parsed[part] if value is not None else parsed.get(part)
    setting: SettingValue = parsed
    return setting

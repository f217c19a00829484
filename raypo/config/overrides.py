"""Settings by dotted key: overrides of the command line, the trials of a search, pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from raypo.errors import InputError


def with_settings(
    values: Mapping[str, Any], settings: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Return `values` with settings replaced or added; `values` itself does not change.

    Args:
        values: a configuration's values, nested by group.
        settings: dotted key (`optimiser.learning_rate`) -> value. A group that is missing or None
            is created.
        source: where the settings come from, for errors.

    Raises:
        InputError: a key leads through a value that is no group of settings.
    """
    changed = dict(values)
    for key, value in settings.items():
        *groups, last = key.split(".")
        inner = changed
        for group in groups:
            content = inner.get(group)
            if not isinstance(content, Mapping | None):
                raise InputError(f"{source}: {key}: {group} is a value, not a group of settings")
            inner[group] = dict(content or {})
            inner = inner[group]
        inner[last] = value
    return changed


def parse_override(override: str) -> tuple[str, Any]:
    """Key and value of `dotted.key=value`; the value is read as YAML.

    Raises:
        InputError: no `=`, no key, or a value that is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: expected key=value")
    try:
        # `|` and `>` alone are YAML's empty blocks, but the character is meant.
        value = text if text in ("|", ">") else yaml.safe_load(text)
        return key, number_if_text_is_one(value)
    except yaml.YAMLError:
        raise InputError(
            f"override {override!r}: {text!r} is not a valid value; put text into double quotes, "
            f"as in '{key}=\"…\"'"
        ) from None


def number_if_text_is_one(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text, but a number is meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value

"""Presets in words, for the command line and the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raypo.objectives.build import build_objective
from raypo.objectives.composition import composition
from raypo.objectives.objective import Objective
from raypo.objectives.presets import PRESETS

_COLUMNS = ("reward", "negatives", "selection", "temperature", "aggregation", "margin", "link")


@dataclass(frozen=True)
class OptionDoc:
    """An option in words."""

    name: str
    default: object
    meaning: str


@dataclass(frozen=True)
class PresetDoc:
    """A preset in words.

    Attributes:
        name: name for `build_objective`.
        source: paper and section or equation.
        formula: one paragraph; empty for sft.
        parts: kind by part; empty for sft.
        options: in the order of the parts.
    """

    name: str
    source: str
    formula: str
    parts: Mapping[str, str]
    options: tuple[OptionDoc, ...]


def describe_preset(name: str) -> PresetDoc:
    """A preset in words.

    Raises:
        ValueError: unknown name.
    """
    objective = build_objective(name)
    preset = PRESETS[name]
    return PresetDoc(
        name=name,
        source=preset.source,
        formula=preset.formula,
        parts=composition(objective) if isinstance(objective, Objective) else {},
        options=tuple(
            OptionDoc(option, known.default, known.option.meaning)
            for option, known in preset.options().items()
        ),
    )


def markdown_table() -> str:
    """All presets as the table of docs/objectives.md."""
    lines = [
        "| " + " | ".join(["name", *_COLUMNS, "source"]) + " |",
        "|" + " --- |" * (len(_COLUMNS) + 2),
    ]
    for name in PRESETS:
        preset = describe_preset(name)
        cells = [preset.parts.get(part, "") for part in _COLUMNS]
        lines.append("| " + " | ".join([f"`{name}`", *cells, preset.source]) + " |")
    return "\n".join(lines) + "\n"

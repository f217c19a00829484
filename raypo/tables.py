"""What the command line prints of objectives."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raypo.objectives import available_objectives
from raypo.objectives.describe import describe

# What a preset has unless it says otherwise: left out where space is short.
_PLAIN = {"own", "all", "fixed", "none", "logistic"}


def all_presets() -> Table:
    """Every preset with the parts that make it what it is, and its source."""
    table = Table("objective", "composition", "source", padding=(0, 1))
    for name in available_objectives():
        described = describe(name)
        parts = [kind for kind in described.parts.values() if kind not in _PLAIN]
        table.add_row(f"[bold]{name}[/]", " x ".join(parts), escape(described.source))
    return table


def one(name: str) -> Group:
    """One preset: source, formula, composition, options with defaults.

    Raises:
        ValueError: unknown name.
    """
    described = describe(name)
    options = Table("option", "default", "meaning", box=None, padding=(0, 2, 0, 0))
    for option, default, meaning in described.options:
        shown = "" if default is None else str(default).lower()
        options.add_row(option, shown, meaning)
    parts = ", ".join(f"{part} {kind}" for part, kind in described.parts.items())
    lines = [Text(described.name, style="bold"), Text(described.source)]
    if described.formula:
        lines.append(Text("\n" + described.formula))
    if parts:
        lines.append(Text("\n" + parts))
    return Group(*lines, Padding(options, (1, 0, 0, 0)) if described.options else Text(""))

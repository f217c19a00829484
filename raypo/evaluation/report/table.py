"""The table of models and metrics: for the terminal, Markdown, LaTeX and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from raypo.io import markdown

COLUMNS = (
    ("generate", "HitRatio@1"),
    ("generate", "ValidRatio"),
    ("generate", "PopularityBias"),
    ("constrained", "HitRatio@1"),
    ("likelihood", "HitRatio@1"),
    ("likelihood", "NDCG@5"),
)
_OPTIONAL_MODES = ("constrained",)
Runs = Sequence[tuple[str, dict[str, Any]]]
Column = tuple[str, str]
_MISSING = "\N{EN DASH}"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    _MISSING: "--",
}


def columns_of(runs: Runs) -> tuple[Column, ...]:
    """Columns of a table of these models; an optional mode that no model has is left out."""
    present = {mode for _, metrics in runs for mode in metrics}
    return tuple(one for one in COLUMNS if one[0] not in _OPTIONAL_MODES or one[0] in present)


def cell(metrics: dict[str, Any], mode: str, metric: str) -> str:
    """'value [low, high]', or a dash for a model without that mode."""
    value = metrics.get(mode, {}).get(metric)
    if value is None:
        return _MISSING
    interval = metrics[mode]["intervals"].get(metric)
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def table_rows(runs: Runs) -> list[list[str]]:
    """One row per model: its name and the cells of its columns."""
    columns = columns_of(runs)
    return [[name, *(cell(metrics, *column) for column in columns)] for name, metrics in runs]


def render_table(runs: Runs) -> Table:
    """The table for the terminal."""
    table = Table(caption="mean [95% bootstrap interval]; HitRatio@1 counts over all rows")
    table.add_column("model")
    for mode, metric in columns_of(runs):
        table.add_column(f"{metric}\n{mode}", justify="right")
    for row in table_rows(runs):
        table.add_row(*row)
    return table


def markdown_table(runs: Runs) -> str:
    """The table for a README."""
    columns = columns_of(runs)
    headings = ["model", *(f"{metric} ({mode})" for mode, metric in columns)]
    return markdown.table(headings, table_rows(runs), numbers=True)


def latex_table(runs: Runs) -> str:
    """The table for a paper; needs the LaTeX package booktabs."""
    columns = columns_of(runs)
    headings = ["model", *(f"{metric} ({mode})" for mode, metric in columns)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(_escaped(heading) for heading in headings) + r" \\",
        r"\midrule",
        *(" & ".join(_escaped(cell) for cell in row) + r" \\" for row in table_rows(runs)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)

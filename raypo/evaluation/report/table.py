"""The table of models and metrics, on the terminal, in Markdown, in LaTeX and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

COLUMNS = (
    ("generate", "HitRatio@1"),
    ("generate", "ValidRatio"),
    ("generate", "PopularityBias"),
    ("constrained", "HitRatio@1"),
    ("likelihood", "HitRatio@1"),
    ("likelihood", "NDCG@5"),
)
_OPTIONAL = ("constrained",)
Runs = Sequence[tuple[str, dict[str, Any]]]
Column = tuple[str, str]
_NOTHING = "\N{EN DASH}"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    _NOTHING: "--",
}


def columns_of(runs: Runs) -> tuple[Column, ...]:
    """The columns of a table of these models: ways that nobody was asked in are left out."""
    present = {way for _, metrics in runs for way in metrics}
    return tuple(one for one in COLUMNS if one[0] not in _OPTIONAL or one[0] in present)


def cell(metrics: dict[str, Any], way: str, metric: str) -> str:
    """'value [low, high]', or a dash where a model does not answer that way."""
    value = metrics.get(way, {}).get(metric)
    if value is None:
        return _NOTHING
    interval = metrics[way]["intervals"].get(metric)
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def table_rows(runs: Runs) -> list[list[str]]:
    """One row per model: its name and the cells of its columns."""
    columns = columns_of(runs)
    return [[name, *(cell(metrics, *column) for column in columns)] for name, metrics in runs]


def render_table(runs: Runs) -> Table:
    """For the terminal."""
    table = Table(caption="mean [95% bootstrap interval]; HitRatio@1 counts over all rows")
    table.add_column("model")
    for way, metric in columns_of(runs):
        table.add_column(f"{metric}\n{way}", justify="right")
    for row in table_rows(runs):
        table.add_row(*row)
    return table


def markdown_table(runs: Runs) -> str:
    """For READMEs."""
    columns = columns_of(runs)
    heads = ["model", *(f"{metric} ({way})" for way, metric in columns)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in table_rows(runs)
    ]
    return "\n".join(lines)


def latex_table(runs: Runs) -> str:
    """For papers; needs the package booktabs."""
    columns = columns_of(runs)
    heads = ["model", *(f"{metric} ({way})" for way, metric in columns)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(_escaped(head) for head in heads) + r" \\",
        r"\midrule",
        *(" & ".join(_escaped(cell) for cell in row) + r" \\" for row in table_rows(runs)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)

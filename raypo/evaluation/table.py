"""The table of models and metrics, on the terminal, in Markdown and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

COLUMNS = (
    ("generate", "HitRatio@1"),
    ("generate", "ValidRatio"),
    ("generate", "PopularityBias"),
    ("likelihood", "HitRatio@1"),
    ("likelihood", "NDCG@5"),
)
Runs = Sequence[tuple[str, dict[str, Any]]]
_NOTHING = "\N{EN DASH}"


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
    """One row per model: its name and the cells of COLUMNS."""
    return [[name, *(cell(metrics, *column) for column in COLUMNS)] for name, metrics in runs]


def render_table(runs: Runs) -> Table:
    """For the terminal."""
    table = Table(caption="mean [95% bootstrap interval]; HitRatio@1 counts over all rows")
    table.add_column("model")
    for way, metric in COLUMNS:
        table.add_column(f"{metric}\n{way}", justify="right")
    for row in table_rows(runs):
        table.add_row(*row)
    return table


def markdown_table(runs: Runs) -> str:
    """For READMEs."""
    heads = ["model", *(f"{metric} ({way})" for way, metric in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(runs)]
    return "\n".join(lines)

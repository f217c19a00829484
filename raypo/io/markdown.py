"""Markdown, as documents and reports have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: bool = False) -> str:
    """A table, with the bars in its cells escaped.

    Args:
        headings: of the columns.
        rows: a cell for each heading.
        numbers: whether all columns but the first are aligned to the right.
    """
    rest = " ---: |" if numbers else " --- |"
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + rest * (len(headings) - 1)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)

"""A finding of the audit, and how rows are shown in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from raypo.data.dataset import Dataset

Severity = Literal["severe", "warning", "note"]
EXAMPLES = 3
HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Finding:
    """A problem that a reader of results should know about.

    Attributes:
        what: the problem in words.
        severity: `severe` changes what scores mean, `warning` may do so, `note` informs.
        count: rows (or items) concerned. of: of how many.
        examples: up to three.
        advice: what to do.
    """

    what: str
    severity: Severity
    count: int
    of: int
    examples: tuple[str, ...]
    advice: str


def rows_finding(
    dataset: Dataset,
    rows: pd.DataFrame,
    found: np.ndarray,
    what: str,
    severity: Severity,
    advice: str,
) -> Finding | None:
    """A finding about the rows where `found` [rows] is True; None where it is nowhere."""
    if not found.any():
        return None
    examples = tuple(
        f"{row.split}:{row.row} {describe(dataset, row.history, row.target)}"
        for row in numbered(rows)[found].head(EXAMPLES).itertuples()
    )
    return Finding(what, severity, int(found.sum()), len(found), examples, advice)


def describe(dataset: Dataset, history: np.ndarray, target: int) -> str:
    """A row in one line: the end of its history, and its target."""
    shown = ", ".join(dataset.titles[item] for item in history[-3:])
    return f"… {shown} -> {dataset.titles[target]}"


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns split and row; rows without are those of training."""
    return rows if "split" in rows else rows.assign(split="train", row=np.arange(len(rows)))


def held_out(dataset: Dataset) -> pd.DataFrame:
    """Validation and test rows, with the columns split and row."""
    frames = [
        getattr(dataset, split).assign(split=split, row=np.arange(len(getattr(dataset, split))))
        for split in HELD_OUT
    ]
    return pd.concat(frames, ignore_index=True)

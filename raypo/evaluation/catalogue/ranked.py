"""`catalogue.parquet`: the best items of every test row's ranking, and the target's exact rank.

Columns:
    row: number in its split; user_id, history, target: of the row.
    items, scores: the best items, at most `KEPT`, and their scores, the highest first; of equal
        scores the smaller item first.
    above, ties: numbers of items with a score above the target's and of others with the same; null
        where the target was not among the ranked items (it was not retrieved), which is a miss.
    num_ranked: how many items were ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.errors import InputError
from raypo.io.files import atomic_path

KEPT = 20  # what metrics look at; a million rows are held in memory
FILE = "catalogue.parquet"
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("user_id", pa.int64()),
        ("history", pa.list_(pa.int64())),
        ("target", pa.int64()),
        ("items", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("above", pa.int64()),
        ("ties", pa.int64()),
        ("num_ranked", pa.int64()),
    ]
)
ANSWER_COLUMNS = ("items", "scores", "above", "ties", "num_ranked")


@dataclass(frozen=True)
class RankedItems:
    """The best of the items that were ranked for a row; attributes as the columns of the file."""

    items: list[int]
    scores: list[float]
    above: int | None
    ties: int | None
    num_ranked: int


def keep_best(items: np.ndarray, scores: np.ndarray, target: int, kept: int = KEPT) -> RankedItems:
    """The best items of a ranking, and where the target stands.

    Args:
        items: item ids, [n], distinct.
        scores: of the items, [n].
        target: item id.
        kept: how many to keep.

    Raises:
        RuntimeError: a score is not a number, which would rank somewhere nevertheless.
    """
    if not np.isfinite(scores).all():
        position = int(np.argmin(np.isfinite(scores)))
        raise RuntimeError(f"the score of item {items[position]} is {scores[position]}")
    best = np.lexsort((items, -scores))[:kept]
    own = scores[items == target]
    above = ties = None
    if len(own):
        above, ties = int((scores > own[0]).sum()), int((scores == own[0]).sum()) - 1
    kept_items, kept_scores = items[best].tolist(), scores[best].astype(float).tolist()
    return RankedItems(kept_items, kept_scores, above, ties, len(items))


def write_ranked(folder: Path, ranked: pd.DataFrame) -> None:
    """Write `catalogue.parquet` atomically; `ranked` has its columns."""
    table = pa.Table.from_pandas(ranked[_SCHEMA.names], schema=_SCHEMA, preserve_index=False)
    with atomic_path(folder / FILE) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_ranked(folder: Path) -> pd.DataFrame:
    """Read `catalogue.parquet`; `above` and `ties` are nullable integers.

    Raises:
        InputError: the file does not exist.
    """
    file = folder / FILE
    if not file.exists():
        raise InputError(f"{file}: no such file; `raypo evaluate catalogue=…` makes it")
    frame = pq.read_table(file).to_pandas()
    return frame.astype({"above": "Int64", "ties": "Int64"})

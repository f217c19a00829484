"""`predictions.parquet`: one row per test case, for every kind of model.

Columns:
    row: number in its split; user_id, history, target, candidates: of the row.
    answer (text), answer_item (by the papers' rule of validity), exact_item (by the exact one): of
        mode `generate`; items are null where the answer is invalid.
    constrained (text), constrained_item: of mode `constrained`.
    logps: one per candidate, of mode `likelihood`, or scores of a recommender or heuristic
        baseline; lengths: tokens of each response.
    permutation_logps: logps under further permutations of the candidates, in the order of column
        candidates.
    error, constrained_error: why mode `generate` or `constrained` has no answer; null where it has
        one or was not asked.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.errors import InputError
from raypo.io.files import atomic_path

_RENAMED = {"order_logps": "permutation_logps"}  # columns of an earlier version
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("user_id", pa.int64()),
        ("history", pa.list_(pa.int64())),
        ("target", pa.int64()),
        ("candidates", pa.list_(pa.int64())),
        ("answer", pa.string()),
        ("answer_item", pa.int64()),
        ("exact_item", pa.int64()),
        ("constrained", pa.string()),
        ("constrained_item", pa.int64()),
        ("logps", pa.list_(pa.float64())),
        ("lengths", pa.list_(pa.int64())),
        ("permutation_logps", pa.list_(pa.list_(pa.float64()))),
        ("error", pa.string()),
        ("constrained_error", pa.string()),
    ]
)


def empty_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    """Predictions without answers, of rows with row, user_id, history, target and candidates."""
    known = rows[["row", "user_id", "history", "target", "candidates"]].reset_index(drop=True)
    empty = pd.DataFrame(
        {name: pd.Series([None] * len(known), dtype=object) for name in _SCHEMA.names[5:]}
    )
    return pd.concat([known, empty], axis=1)


def write_predictions(folder: Path, predictions: pd.DataFrame) -> None:
    """Write `predictions.parquet` atomically."""
    table = pa.Table.from_pandas(predictions, schema=_SCHEMA, preserve_index=False)
    with atomic_path(folder / "predictions.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read `predictions.parquet`, also of an earlier version.

    Raises:
        InputError: the file does not exist.
    """
    file = folder / "predictions.parquet"
    if not file.exists():
        raise InputError(f"{file}: no such file; `raypo evaluate` makes it")
    predictions = pq.read_table(file).to_pandas().rename(columns=_RENAMED)
    if "constrained_error" not in predictions and predictions["constrained"].notna().any():
        # An earlier version had one column for the errors of both modes.
        failed = predictions["constrained"].isna()
        predictions["constrained_error"] = predictions["error"].where(failed, None)
    for name in _SCHEMA.names:  # missing in an earlier version
        if name not in predictions:
            predictions[name] = pd.Series([None] * len(predictions), dtype=object)
    return predictions

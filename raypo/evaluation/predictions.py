"""`predictions.parquet`: one row per test case, whoever answered.

Columns: row (number in its split), user_id, history, target, candidates; answer (text), answer_item
(by the papers' rule) and exact_item (by the exact one; null where invalid), for models that
generate; constrained (text) and constrained_item, where only a candidate could come out; logps (one
per candidate; a recommender's or rule's scores stand there too) with lengths (response tokens) and
order_logps (logps under other orders of the candidates, in the candidates' own order); error (text,
null where nothing failed).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.config import InputError
from raypo.io.files import atomic_path

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
        ("order_logps", pa.list_(pa.list_(pa.float64()))),
        ("error", pa.string()),
    ]
)


def empty_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    """Unanswered predictions of rows with row, user_id, history, target and candidates."""
    given = rows[["row", "user_id", "history", "target", "candidates"]].reset_index(drop=True)
    nothing = pd.DataFrame(
        {name: pd.Series([None] * len(given), dtype=object) for name in _SCHEMA.names[5:]}
    )
    return pd.concat([given, nothing], axis=1)


def write_predictions(folder: Path, predictions: pd.DataFrame) -> None:
    """Write `predictions.parquet`, whole or not at all."""
    table = pa.Table.from_pandas(predictions, schema=_SCHEMA, preserve_index=False)
    with atomic_path(folder / "predictions.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read what `write_predictions` wrote.

    Raises:
        InputError: there is none.
    """
    file = folder / "predictions.parquet"
    if not file.exists():
        raise InputError(f"{file}: no such file; `raypo evaluate` makes it")
    predictions = pq.read_table(file).to_pandas()
    for name in _SCHEMA.names:  # of an earlier version
        if name not in predictions:
            predictions[name] = pd.Series([None] * len(predictions), dtype=object)
    return predictions

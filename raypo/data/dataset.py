"""Reading and checking a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypo.config import InputError
from raypo.io.files import file_hash, read_json, value_hash

_ROW_COLUMNS = ("user_id", "history", "target", "timestamp")
_COLUMNS = {
    "train": _ROW_COLUMNS,
    "validation": (*_ROW_COLUMNS, "candidates"),
    "test": (*_ROW_COLUMNS, "candidates"),
    "items": ("item_id", "source_id", "title", "popularity"),
}


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        folder: of the data set.
        train, validation, test: rows user_id, history, target, timestamp; the last two with
            candidates. The first two may be empty (`require_rows`).
        items: item_id (the row number), source_id, title, popularity.
        info: content of `dataset.json`.
    """

    folder: Path
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    items: pd.DataFrame
    info: dict[str, Any]

    @property
    def titles(self) -> list[str]:
        """Title of item i at position i."""
        return list(self.items["title"])

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""
        return len(self.items)

    def require_rows(self, *splits: str) -> None:
        """Refuse a data set that was imported without the rows of a split.

        Raises:
            InputError: a split has no rows.
        """
        for split in splits:
            if getattr(self, split).empty:
                raise InputError(
                    f"{self.folder}: has no {split} rows, which this needs; it was imported "
                    f"without a {split} file"
                )

    @property
    def fingerprint(self) -> str:
        """Hash of all the files' content."""
        return value_hash(self.info["files"])


def load_dataset(folder: Path, maximum_rows: int | None = None) -> Dataset:
    """Read and check a prepared data set.

    Args:
        folder: of the data set.
        maximum_rows: a larger data set is cut to about this many rows: all rows of some users,
            drawn at random with a fixed seed.

    Raises:
        InputError: a file is missing, was changed after it was prepared, lacks a column, or holds
            an impossible row; the message names the file and the row.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such data set; `raypo data prepare` makes one")
    info = read_json(folder / "dataset.json")
    if not isinstance(info, dict) or not isinstance(info.get("files"), dict):
        raise InputError(f"{folder}/dataset.json: no `files`; prepare the data set again")
    users = _drawn_users(folder, maximum_rows)
    frames = {name: _read(folder / f"{name}.parquet", info, users) for name in _COLUMNS}
    num_items = len(frames["items"])
    if not np.array_equal(frames["items"]["item_id"], np.arange(num_items)):
        raise InputError(f"{folder}/items.parquet: item_id must count 0, 1, 2, …")
    repeated = frames["items"]["title"].duplicated().to_numpy()
    _refuse(folder / "items.parquet", repeated, "its title is already in an earlier row")
    for name in ("train", "validation", "test"):
        _check_rows(folder / f"{name}.parquet", frames[name], num_items)
    return Dataset(folder, info=info, **frames)


def sample_rows(frame: pd.DataFrame, rows: int | None, seed: int) -> pd.DataFrame:
    """Draw `rows` rows without replacement (None takes all), in the frame's order.

    The result has a column `row`: the number of the row in `frame`.
    """
    numbered = frame.reset_index(drop=True)
    numbered["row"] = np.arange(len(numbered))
    if rows is None or rows >= len(numbered):
        return numbered
    chosen = np.random.default_rng(seed).choice(len(numbered), rows, replace=False)
    return numbered.iloc[np.sort(chosen)].reset_index(drop=True)


def _drawn_users(folder: Path, maximum_rows: int | None) -> np.ndarray | None:
    if maximum_rows is None:
        return None
    files = [folder / f"{name}.parquet" for name in ("train", "validation", "test")]
    if not all(file.exists() for file in files):
        return None  # a missing file is reported when it is read
    total = sum(pq.read_metadata(file).num_rows for file in files)
    if total <= maximum_rows:
        return None
    columns = [pq.read_table(file, columns=["user_id"])["user_id"].unique() for file in files]
    users = pa.concat_arrays(columns).unique()
    all_users = np.sort(users.to_numpy())
    count = max(1, len(all_users) * maximum_rows // total)
    return np.sort(np.random.default_rng(0).choice(all_users, count, replace=False))


def _read(file: Path, info: dict[str, Any], users: np.ndarray | None) -> pd.DataFrame:
    if not file.exists():
        raise InputError(f"{file}: missing; remove the folder and prepare the data set again")
    expected = info["files"].get(file.name)
    if file_hash(file) != expected:
        raise InputError(f"{file}: changed since it was prepared (its sha256 differs)")
    frame = pd.read_parquet(file) if users is None else _read_users(file, users)
    for column in _COLUMNS[file.stem]:
        if column not in frame.columns:
            raise InputError(f"{file}: no column {column!r}; it has {', '.join(frame.columns)}")
        _refuse(file, frame[column].isna().to_numpy(), f"{column} is empty")
    if frame.empty and info.get("counts", {}).get(file.stem) != 0:
        raise InputError(f"{file}: has no rows")
    return frame


def _read_users(file: Path, users: np.ndarray) -> pd.DataFrame:
    """Read a file in batches and keep only these users' rows."""
    parquet = pq.ParquetFile(file)
    if "user_id" not in parquet.schema_arrow.names:
        return pd.read_parquet(file)
    wanted = pa.array(users)
    batches = (
        batch.filter(pc.is_in(batch["user_id"], wanted)) for batch in parquet.iter_batches(1 << 16)
    )
    frame: pd.DataFrame = pa.Table.from_batches(batches, parquet.schema_arrow).to_pandas()
    return frame


def _check_rows(file: Path, frame: pd.DataFrame, num_items: int) -> None:
    if frame.empty:
        return
    targets = frame["target"].to_numpy()
    _refuse(file, (targets < 0) | (targets >= num_items), "its target is an unknown item")
    _check_items(file, frame["history"], "history", num_items)
    if "candidates" not in frame.columns:
        return
    lengths = _check_items(file, frame["candidates"], "candidates", num_items)
    problem = f"it does not have {lengths[0]} candidates, unlike the first row"
    _refuse(file, lengths != lengths[0], problem)
    candidates = np.concatenate(frame["candidates"].tolist()).reshape(len(frame), -1)
    absent = ~(candidates == targets[:, None]).any(axis=1)
    _refuse(file, absent, "its target is not among its candidates")
    twice = (np.diff(np.sort(candidates, axis=1), axis=1) == 0).any(axis=1)
    _refuse(file, twice, "an item occurs twice among its candidates")


def _check_items(file: Path, column: pd.Series, name: str, num_items: int) -> np.ndarray:
    """Check lists of item ids; returns their lengths, [rows]."""
    lengths = np.array([len(items) for items in column])
    _refuse(file, lengths == 0, f"its {name} is empty")
    flat = np.concatenate(column.tolist())
    rows = np.repeat(np.arange(len(column)), lengths)
    outside = np.zeros(len(column), dtype=bool)
    outside[rows[(flat < 0) | (flat >= num_items)]] = True
    _refuse(file, outside, f"its {name} holds an unknown item")
    return lengths


def _refuse(file: Path, bad: np.ndarray, what: str) -> None:
    """Refuse a file by its first bad row, counted from 1."""
    if bad.any():
        raise InputError(f"{file}: row {int(bad.argmax()) + 1}: {what}")

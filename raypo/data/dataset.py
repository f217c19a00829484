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

from raypo.data.training_rows import TrainingRows, open_training_rows
from raypo.errors import InputError
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
            candidates. Training and validation may be empty (see `require_rows`).
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
    def texts(self) -> list[str]:
        """What a text encoder reads of item i at position i: its text, or else its title."""
        return list(self.titles if self.given_texts is None else self.given_texts)

    @property
    def given_texts(self) -> list[str] | None:
        """Text of item i at position i; None if the data set was prepared without item_text."""
        return _texts(self.items)

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""
        return len(self.items)

    @property
    def cold(self) -> np.ndarray | None:
        """Items that training must not show, bool [items]; None without split_by=cold-items."""
        return _cold(self.items)

    def require_rows(self, *splits: str) -> None:
        """Require that splits have rows.

        Args:
            *splits: `train` or `validation`.

        Raises:
            InputError: one has none; the message names it.
        """
        for split in splits:
            if getattr(self, split).empty:
                raise _without_rows(self.folder, split)

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
    info = _read_info(folder)
    users = _drawn_users(folder, maximum_rows)
    frames = {name: _read(folder / f"{name}.parquet", info, users) for name in _COLUMNS}
    num_items = len(frames["items"])
    _check_catalogue(folder / "items.parquet", frames["items"])
    for name in ("train", "validation", "test"):
        _check_rows(folder / f"{name}.parquet", frames[name], num_items)
    return Dataset(folder, info=info, **frames)


def load_items(folder: Path) -> pd.DataFrame:
    """The items of a prepared data set alone: item_id, source_id, title, popularity and others.

    Raises:
        InputError: as `load_dataset`.
    """
    items = _read(folder / "items.parquet", _read_info(folder), None)
    _check_catalogue(folder / "items.parquet", items)
    return items


@dataclass(frozen=True)
class TrainingData:
    """What training reads of a data set: rows are mapped and read as they are used.

    Attributes:
        rows: training rows.
        validation: the validation rows that were asked for, with their number in the column `row`.
        titles: of item i at position i.
        info: content of `dataset.json`.
        cold: items that training must not show, bool [items]; None without split_by=cold-items.
        given_texts: text of item i at position i; None without item_text.
    """

    rows: TrainingRows
    validation: pd.DataFrame
    titles: list[str]
    info: dict[str, Any]
    cold: np.ndarray | None = None
    given_texts: list[str] | None = None

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""
        return len(self.titles)

    @property
    def fingerprint(self) -> str:
        """Hash of all the files' content, as of `Dataset`."""
        return value_hash(self.info["files"])


def load_training_data(folder: Path, validation_rows: int, seed: int) -> TrainingData:
    """Read what training needs, in memory that does not grow with the number of rows.

    Args:
        folder: of the data set.
        validation_rows: validation rows to draw, as `sample_rows` draws them.
        seed: of the draw.

    Raises:
        InputError: as `load_dataset`, or there are no training or validation rows.
    """
    info = _read_info(folder)
    items = _read(folder / "items.parquet", info, None)
    _check_catalogue(folder / "items.parquet", items)
    for name in ("train", "validation"):
        file = folder / f"{name}.parquet"
        if not file.exists():
            raise InputError(f"{file}: missing; remove the folder and prepare the data set again")
        if pq.read_metadata(file).num_rows == 0:
            raise _without_rows(folder, name)
    file = folder / "train.parquet"
    rows = open_training_rows(file, str(info["files"].get(file.name)), len(items))
    validation = _sample_of_file(folder / "validation.parquet", info, validation_rows, seed)
    _check_rows(folder / "validation.parquet", validation, len(items))
    return TrainingData(rows, validation, list(items["title"]), info, _cold(items), _texts(items))


def _cold(items: pd.DataFrame) -> np.ndarray | None:
    # A copy: what pandas gives may not be written to, of which torch warns.
    return np.array(items["cold"], dtype=bool) if "cold" in items else None


def _texts(items: pd.DataFrame) -> list[str] | None:
    return list(items["text"]) if "text" in items else None


def _sample_of_file(file: Path, info: dict[str, Any], rows: int, seed: int) -> pd.DataFrame:
    """The rows that `sample_rows` draws, read batch by batch."""
    if file_hash(file) != info["files"].get(file.name):
        raise InputError(f"{file}: changed since it was prepared (its sha256 differs)")
    parquet = pq.ParquetFile(file)
    total = parquet.metadata.num_rows
    chosen = np.arange(total)
    if rows < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, rows, replace=False))
    start, parts = 0, []
    for batch in parquet.iter_batches(1 << 16):
        own = chosen[(chosen >= start) & (chosen < start + len(batch))]
        if len(own):
            parts.append(batch.take(pa.array(own - start)))
        start += len(batch)
    frame: pd.DataFrame = pa.Table.from_batches(parts).to_pandas()
    _check_columns(file, frame)
    return frame.assign(row=chosen)


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


def _read_info(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such data set; `raypo data prepare` makes one")
    info = read_json(folder / "dataset.json")
    if not isinstance(info, dict) or not isinstance(info.get("files"), dict):
        raise InputError(f"{folder}/dataset.json: no `files`; prepare the data set again")
    return info


def _check_catalogue(file: Path, items: pd.DataFrame) -> None:
    if not np.array_equal(items["item_id"], np.arange(len(items))):
        raise InputError(f"{file}: item_id must count 0, 1, 2, …")
    repeated = items["title"].duplicated().to_numpy()
    _refuse(file, repeated, "its title is already in an earlier row")


def _without_rows(folder: Path, split: str) -> InputError:
    return InputError(
        f"{folder}: has no {split} rows, which this stage needs; it can be evaluated on alone"
    )


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
    _check_columns(file, frame)
    if frame.empty and file.stem in ("items", "test"):
        raise InputError(f"{file}: has no rows")
    return frame


def _check_columns(file: Path, frame: pd.DataFrame) -> None:
    for column in _COLUMNS[file.stem]:
        if column not in frame.columns:
            raise InputError(f"{file}: no column {column!r}; it has {', '.join(frame.columns)}")
        _refuse(file, frame[column].isna().to_numpy(), f"{column} is empty")


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

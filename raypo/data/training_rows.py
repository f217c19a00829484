"""Training rows as memory-mapped arrays, so that a process holds the rows it reads and no others.

The arrays are made once from `train.parquet` and kept in the cache under the hash of its content.
Parquet stays the format of a data set: it is packed, and cannot be read row by row.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from raypo.config import cache_folder
from raypo.errors import InputError
from raypo.io.files import file_hash, folder_beside, value_hash

_VERSION = 2
_COLUMNS = ("user_id", "history", "target", "timestamp")
_BATCH = 1 << 16
# Interactions of users whose items are sorted at a time.
_SORTED = 1 << 23


@dataclass(frozen=True)
class TrainingRows:
    """Training rows, and every item that a user interacted with in them.

    Attributes:
        targets: [rows] item ids.
        offsets: [rows + 1] where each row's history begins in `histories`.
        histories: item ids of all histories, one after the other.
        users: [rows] number of each row's user, from 0.
        user_ids: [users] the users' ids.
        seen_offsets: [users + 1] where each user's items begin in `seen`.
        seen: item ids in the histories and targets of each user's rows, ascending, each once.
        timestamps: [rows] times of the targets.
    """

    targets: np.ndarray
    offsets: np.ndarray
    histories: np.ndarray
    users: np.ndarray
    user_ids: np.ndarray
    seen_offsets: np.ndarray
    seen: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def history(self, row: int) -> list[int]:
        """Item ids of a row's history, oldest first."""
        items: list[int] = self.histories[self.offsets[row] : self.offsets[row + 1]].tolist()
        return items

    def seen_by_user_of(self, row: int) -> np.ndarray:
        """Item ids that the row's user interacted with in training, ascending."""
        user = self.users[row]
        return self.seen[self.seen_offsets[user] : self.seen_offsets[user + 1]]

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> TrainingRows:
        """Rows with user_id, history and target, in memory; without timestamp in their order."""
        if "timestamp" not in frame:
            frame = frame.assign(timestamp=np.arange(len(frame)))
        table = pa.table({name: frame[name].tolist() for name in _COLUMNS})
        (part,) = _parts([table.combine_chunks().to_batches()[0]])
        user_ids, users = np.unique(part.users, return_inverse=True)
        num_items = int(max(part.histories.max(), part.targets.max())) + 1
        keys = _sorted_once(part.keys(users, num_items))
        return cls(
            part.targets,
            _offsets(part.lengths),
            part.histories,
            users,
            user_ids,
            _offsets(np.bincount(keys // num_items, minlength=len(user_ids))),
            (keys % num_items).astype(np.int32),
            part.timestamps,
        )


def open_training_rows(file: Path, content: str, num_items: int) -> TrainingRows:
    """Map the arrays of a `train.parquet`, and make them where the cache has none.

    Args:
        file: the Parquet file, read only if the arrays are to be made.
        content: sha256 of its content, from `dataset.json`.
        num_items: items in the catalogue.

    Raises:
        InputError: the file was changed after it was prepared, or holds an impossible row.
    """
    folder = cache_folder() / "training-rows" / value_hash([_VERSION, content, num_items])[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # of several ranks on a machine one makes them
            if not folder.exists():
                _make(file, content, num_items, folder)
    return TrainingRows(
        **{one.name: _mapped(folder / one.name, _TYPES[one.name]) for one in fields(TrainingRows)}
    )


_TYPES: dict[str, Any] = {
    "targets": np.int32,
    "offsets": np.int64,
    "histories": np.int32,
    "users": np.int32,
    "user_ids": np.int64,
    "seen_offsets": np.int64,
    "seen": np.int32,
    "timestamps": np.int64,
}


def _mapped(file: Path, kind: Any) -> np.ndarray:
    mapped = np.memmap(file, kind, mode="r")
    if hasattr(mmap, "MADV_RANDOM"):
        # Rows are read in random order: what stands beside them need not be read too.
        mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return mapped


@dataclass(frozen=True)
class _Part:
    """Some rows: users' ids, lengths of histories, their items in a row, targets, timestamps."""

    users: np.ndarray
    lengths: np.ndarray
    histories: np.ndarray
    targets: np.ndarray
    timestamps: np.ndarray

    def keys(self, users: np.ndarray, num_items: int) -> np.ndarray:
        """A number for each pair of a user (numbered by `users` [rows]) and an item."""
        of_histories = np.repeat(users, self.lengths).astype(np.int64) * num_items + self.histories
        return np.concatenate([of_histories, users.astype(np.int64) * num_items + self.targets])


def _parts(batches: Sequence[pa.RecordBatch] | Iterator[pa.RecordBatch]) -> Iterator[_Part]:
    for batch in batches:
        history = batch.column("history")
        lengths = history.value_lengths().to_numpy(zero_copy_only=False)
        yield _Part(
            batch.column("user_id").to_numpy(zero_copy_only=False).astype(np.int64),
            np.nan_to_num(lengths).astype(np.int64),
            history.flatten().to_numpy(zero_copy_only=False).astype(np.int32),
            batch.column("target").to_numpy(zero_copy_only=False).astype(np.int32),
            batch.column("timestamp").to_numpy(zero_copy_only=False).astype(np.int64),
        )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _sorted_once(keys: np.ndarray) -> np.ndarray:
    """The keys in order, each once; `np.unique` hashes them, which takes ten times longer."""
    keys.sort()
    kept = np.ones(len(keys), dtype=bool)
    kept[1:] = keys[1:] != keys[:-1]
    once: np.ndarray = keys[kept]
    return once


def _make(file: Path, content: str, num_items: int, folder: Path) -> None:
    """Write all arrays, in batches of rows and of users."""
    if file_hash(file) != content:
        raise InputError(f"{file}: changed since it was prepared (its sha256 differs)")
    parquet = pq.ParquetFile(file)
    for name in _COLUMNS:
        if name not in parquet.schema_arrow.names:
            raise InputError(f"{file}: no column {name!r}")
    user_ids = np.unique(parquet.read(columns=["user_id"]).column("user_id").to_numpy())
    with folder_beside(folder) as parent:
        made = parent / "arrays"
        made.mkdir()
        buckets = _Buckets(parent, len(user_ids), parquet.metadata.num_rows)
        row, end = 0, np.int64(0)
        _append(made, "offsets", np.zeros(1))
        for part in _parts(parquet.iter_batches(_BATCH, columns=list(_COLUMNS))):
            _check(file, row, part, num_items)
            users = np.searchsorted(user_ids, part.users)
            _append(made, "targets", part.targets)
            _append(made, "timestamps", part.timestamps)
            _append(made, "histories", part.histories)
            _append(made, "users", users)
            _append(made, "offsets", end + np.cumsum(part.lengths))
            buckets.add(_sorted_once(part.keys(users, num_items)), num_items)
            row, end = row + len(users), end + part.lengths.sum()
        _append(made, "user_ids", user_ids)
        buckets.write(made, num_items)
        made.rename(folder)


def _append(folder: Path, name: str, values: np.ndarray) -> None:
    with (folder / name).open("ab") as file:
        np.asarray(values).astype(_TYPES[name]).tofile(file)


def _check(file: Path, first: int, part: _Part, num_items: int) -> None:
    rows = np.repeat(np.arange(len(part.lengths)), part.lengths)
    unknown = np.zeros(len(part.lengths), dtype=bool)
    unknown[rows[(part.histories < 0) | (part.histories >= num_items)]] = True
    for bad, what in (
        ((part.targets < 0) | (part.targets >= num_items), "its target is an unknown item"),
        (part.lengths == 0, "its history is empty"),
        (unknown, "its history holds an unknown item"),
    ):
        if bad.any():
            raise InputError(f"{file}: row {first + int(bad.argmax()) + 1}: {what}")


class _Buckets:
    """Pairs of user and item in files by ranges of users, each small enough to be sorted."""

    def __init__(self, folder: Path, num_users: int, num_rows: int) -> None:
        self._folder = folder
        self._num_users = num_users
        self._count = max(1, min(num_users, 1 + num_rows * 10 // _SORTED))
        self._edges = np.linspace(0, num_users, self._count + 1).astype(np.int64)

    def add(self, keys: np.ndarray, num_items: int) -> None:
        """Add pairs, ascending."""
        cuts = np.searchsorted(keys, self._edges * num_items)
        for bucket in range(self._count):
            with (self._folder / f"bucket-{bucket}").open("ab") as file:
                keys[cuts[bucket] : cuts[bucket + 1]].tofile(file)

    def write(self, made: Path, num_items: int) -> None:
        """Write each user's items, and where they begin."""
        end = 0
        _append(made, "seen_offsets", np.zeros(1))
        for bucket in range(self._count):
            keys = _sorted_once(np.fromfile(self._folder / f"bucket-{bucket}", np.int64))
            first, last = self._edges[bucket], self._edges[bucket + 1]
            counts = np.bincount(keys // num_items - first, minlength=last - first)
            _append(made, "seen", keys % num_items)
            _append(made, "seen_offsets", end + np.cumsum(counts))
            end += len(keys)

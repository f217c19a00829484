"""Reading a log into shards of users on disk, so that a log of any size fits into memory.

A shard holds all interactions of its users. The user's name alone decides the shard, so the
result is the same with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypo.data.readers import LogReader, RejectedRows, read_interactions
from raypo.data.readers.rejected_rows import Policy
from raypo.data.readers.sources import Source
from raypo.data.readers.times import TimesInUnit, count_units

Duplicates = Literal["keep", "exact", "first", "last"]
_READ = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.int32()),
        ("time", pa.float64()),
        ("order", pa.int64()),
        ("kept", pa.bool_()),
    ]
)
_FILE = 2**40  # rows of one file have orders below it


@dataclass(frozen=True)
class ShardedLog:
    """A log in shards on disk.

    Attributes:
        folder: of the shards.
        users: how many each shard has.
        num_items: in the catalogue.
    """

    folder: Path
    users: tuple[int, ...]
    num_items: int


@dataclass(frozen=True)
class ReadTask:
    """One file of a log to read into shards.

    Attributes:
        number: of the file in the log. source: the file. reader: how to read it.
        minimum_rating: rows below it only count as seen.
        tie_seed: orders interactions of the same time at random; None keeps the files' order.
        items: Parquet file of the catalogue's ids.
        shards: how many. folder: of the shards. policy: what happens to unusable rows.
    """

    number: int
    source: Source
    reader: LogReader
    minimum_rating: float | None
    tie_seed: int | None
    items: Path
    shards: int
    folder: Path
    policy: Policy


class ReadResult(TypedDict):
    """Number of usable and of rejected rows in a file, and the file with the latter.

    `units` counts the times that are plausible in each unit.
    """

    rows: int
    rejected: int
    rejected_file: str
    units: dict[str, TimesInUnit]


def read_into_shards(task: ReadTask) -> ReadResult:
    """Read a file in chunks, and add each row to its user's shard.

    Raises:
        InputError: the file cannot be read, or a row is unusable and the policy is `stop`.
    """
    rejected = RejectedRows(task.policy)
    names = pq.read_table(task.items)["item"].to_pandas()
    positions = pd.Series(np.arange(len(names), dtype=np.int32), index=names)
    writers: dict[int, pq.ParquetWriter] = {}
    rows = 0
    units: dict[str, TimesInUnit] = {}
    rejected_file = task.folder / f"rejected-{task.number:05}.jsonl"
    try:
        for chunk in read_interactions(task.source, task.reader, rejected):
            chunk = _known_items(chunk, positions, task, rejected)
            count_units(units, chunk["time"].to_numpy(), chunk["line"].to_numpy())
            order = task.number * _FILE + rows + np.arange(len(chunk))
            rows += len(chunk)
            if task.tie_seed is not None:
                order = _random_keys(order, task.tie_seed)
            table = pa.Table.from_pandas(
                chunk.assign(order=order, kept=_kept(chunk, task)), _READ, preserve_index=False
            )
            for shard, part in _by_shard(table, chunk["user"], task.shards):
                if shard not in writers:
                    file = task.folder / f"read-{shard:05}-{task.number:05}.parquet"
                    writers[shard] = pq.ParquetWriter(file, _READ)
                writers[shard].write_table(part)
            _append(rejected_file, rejected.drain())
    finally:
        for writer in writers.values():
            writer.close()
    _append(rejected_file, rejected.drain())
    return ReadResult(
        rows=rows, rejected=rejected.count, rejected_file=str(rejected_file), units=units
    )


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _random_keys(order: np.ndarray, seed: int) -> np.ndarray:
    """Distinct random numbers that replace positions in the log, determined by the seed.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection of 64 bits.
    """
    increment, first, second = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
    mixed = order.astype(np.uint64) + np.uint64((seed + 1) * increment % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(first)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(second)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))).view(np.int64))


def _known_items(
    chunk: pd.DataFrame, positions: pd.Series, task: ReadTask, rejected: RejectedRows
) -> pd.DataFrame:
    known = chunk["item"].map(positions)
    unknown = known.isna().to_numpy()
    for row in chunk[unknown].itertuples():
        rejected.add(
            task.source.location,
            int(str(row.line)),
            f"item {row.item!r} is not in the catalogue",
            f"{row.user}\t{row.item}",
        )
    return chunk.assign(item=known)[~unknown].astype({"item": "int32"})


def _kept(chunk: pd.DataFrame, task: ReadTask) -> np.ndarray:
    if task.minimum_rating is None:
        return np.ones(len(chunk), dtype=bool)
    kept: np.ndarray = (chunk["rating"] >= task.minimum_rating).to_numpy()
    return kept


def _by_shard(table: pa.Table, users: pd.Series, shards: int) -> Iterator[tuple[int, pa.Table]]:
    # A hash with a fixed key: the same in every process and on every machine.
    hashed = pd.util.hash_array(users.to_numpy(dtype=object)) % np.uint64(shards)
    order = np.argsort(hashed, kind="stable")
    numbers, starts = np.unique(hashed[order], return_index=True)
    table = table.take(order)
    ends = np.append(starts[1:], len(order))
    for number, start, end in zip(numbers.tolist(), starts, ends, strict=True):
        yield int(number), table.slice(int(start), int(end - start))


@dataclass(frozen=True)
class Shard:
    """A shard's interactions by user, time and position in the log.

    Attributes:
        user: index of the user's name among the shard's sorted names, int32 [rows].
        item: index in the catalogue, int32. time: seconds. order: position in the log, int64.
        kept: False for rows that only count as seen.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    order: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class OrderTask:
    """A shard to sort.

    Attributes:
        number: of the shard. folder: of the shards. duplicates: which ones are kept.
        per_second: by which each file's times are divided, [files].
    """

    number: int
    folder: Path
    duplicates: Duplicates
    per_second: tuple[float, ...]


def order_shard(task: OrderTask) -> int:
    """Sort a shard by user, time and position, and mark duplicates as not kept.

    `exact` keeps the first of rows with the same user, item and time. `first` and `last` keep one
    row per user and item.

    Returns:
        The number of users in the shard.
    """
    files = sorted(task.folder.glob(f"read-{task.number:05}-*.parquet"))
    tables = [_in_seconds(file, task.per_second) for file in files]
    frame = pa.concat_tables(tables or [_READ.empty_table()]).to_pandas()
    codes, names = pd.factorize(frame["user"], sort=True)
    frame["user"] = codes.astype("int32")
    order = np.lexsort((frame["order"], frame["time"], codes))
    frame = frame.iloc[order].reset_index(drop=True)
    frame["kept"] &= ~_duplicated(frame[frame["kept"]], task.duplicates).reindex(
        frame.index, fill_value=False
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, task.folder / f"shard-{task.number:05}.parquet")
    named = pa.table({"user": pa.array(names, pa.string())})
    pq.write_table(named, task.folder / f"users-{task.number:05}.parquet")
    for file in files:
        file.unlink()
    return len(names)


def _in_seconds(file: Path, per_second: Sequence[float]) -> pa.Table:
    """Rows of one file of the log in a shard, their times in seconds."""
    table = pq.read_table(file, schema=_READ)
    divisor = per_second[int(file.stem.rpartition("-")[2])]
    if divisor == 1:
        return table
    column = table.schema.get_field_index("time")
    return table.set_column(column, _READ.field("time"), pc.divide(table["time"], divisor))


def _duplicated(rows: pd.DataFrame, policy: Duplicates) -> pd.Series:
    if policy == "keep":
        return pd.Series(False, index=rows.index)
    subset = ["user", "item", "time"] if policy == "exact" else ["user", "item"]
    return rows.duplicated(subset, keep="last" if policy == "last" else "first")


def load_shard(folder: Path, number: int) -> Shard:
    """Read what `order_shard` wrote."""
    table = pq.read_table(folder / f"shard-{number:05}.parquet")
    columns = (table[name].to_numpy() for name in ("user", "item", "time", "order", "kept"))
    return Shard(*columns)


def load_column(folder: Path, number: int, name: str) -> np.ndarray:
    """Read one column of a shard."""
    file = folder / f"shard-{number:05}.parquet"
    return np.asarray(pq.read_table(file, columns=[name])[name].to_numpy())


def shard_users(folder: Path, number: int) -> list[str]:
    """Names of the shard's users."""
    names: list[str] = pq.read_table(folder / f"users-{number:05}.parquet")["user"].to_pylist()
    return names

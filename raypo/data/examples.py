"""Examples: rows with histories and candidates, made per shard and joined in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypo.data.candidates import CandidateSampler, num_unseen
from raypo.data.shards import Shard, load_shard, shard_users
from raypo.data.split import SPLITS, kept_columns, load_shard_split, positions_in_sequences
from raypo.errors import InputError

PART = 1 << 17  # rows of a part: a few tens of MB


@dataclass(frozen=True)
class RowTask:
    """A shard to make rows of.

    Attributes:
        number: of the shard. folder: of the shards.
        items: number in the data set of every item of the catalogue, -1 for none.
        history_length: items of a history. sampler: of candidates.
    """

    number: int
    folder: Path
    items: np.ndarray
    history_length: int
    sampler: CandidateSampler


def make_rows(task: RowTask) -> int:
    """Write the shard's rows into parts of the splits.

    Returns:
        The number of candidate sets that were filled up uniformly.

    Raises:
        InputError: a user has too few unseen items.
    """
    shard = load_shard(task.folder, task.number)
    plan = load_shard_split(task.folder, task.number)
    user, item, time = kept_columns(shard, plan)
    item = task.items[item]
    targets = np.flatnonzero(plan.is_row)
    seen = _seen(shard, task)
    _refuse_small_catalogue(np.unique(user[targets]), seen, task)
    columns = {
        "number": plan.number,
        "user_id": plan.user_ids[user[targets]],
        "history": histories(item, user, targets, task.history_length),
        "target": item[targets].astype(np.int64),
        "timestamp": time[targets].astype(np.int64),
    }
    table = pa.table(columns)
    filled = 0
    for split, name in enumerate(SPLITS):
        chosen = np.flatnonzero(plan.split == split)
        rows = table.take(chosen)
        if split:
            drawn, count = _candidates(user[targets[chosen]], seen, rows, split, task)
            rows = rows.append_column("candidates", drawn)
            filled += count
        _write_parts(rows, task, name)
    return filled


def histories(
    items: np.ndarray, users: np.ndarray, targets: np.ndarray, length: int
) -> pa.ListArray:
    """Up to `length` items of the same user before each target, oldest first.

    Args:
        items: of interactions, [interactions].
        users: of interactions, grouped, [interactions].
        targets: positions of the targets, [rows].
        length: of the longest history.
    """
    lengths = np.minimum(positions_in_sequences(users)[targets], length)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    positions = np.repeat(targets - lengths, lengths) + within
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(items[positions].astype(np.int64))
    )


def _seen(shard: Shard, task: RowTask) -> dict[int, set[int]]:
    """Items of each user in the log, including interactions that are not kept."""
    items = task.items[shard.item]
    users, starts = np.unique(shard.user, return_index=True)
    parts = np.split(items, starts[1:]) if len(users) else []
    return {int(user): set(part.tolist()) - {-1} for user, part in zip(users, parts, strict=True)}


def _refuse_small_catalogue(users: np.ndarray, seen: dict[int, set[int]], task: RowTask) -> None:
    """Training rows get as many candidates, so their users are checked too."""
    for user in users.tolist():
        # Training shows no cold item.
        free = num_unseen(seen[user], task.sampler.num_items, task.sampler.cold)
        if free < task.sampler.size - 1:
            name = shard_users(task.folder, task.number)[user]
            raise InputError(
                f"candidates: {task.sampler.size} asked for, but user {name!r} has only {free} "
                f"of {task.sampler.num_items} items unseen; ask for fewer"
            )


def _candidates(
    users: np.ndarray, seen: dict[int, set[int]], rows: pa.Table, split: int, task: RowTask
) -> tuple[pa.ListArray, int]:
    drawn = [
        task.sampler.draw(split, number, seen[user], target)
        for user, number, target in zip(
            users.tolist(), rows["number"].to_pylist(), rows["target"].to_pylist(), strict=True
        )
    ]
    candidates = pa.array([candidates for candidates, _ in drawn], pa.list_(pa.int64()))
    return candidates, sum(filled for _, filled in drawn)


def _write_parts(rows: pa.Table, task: RowTask, split: str) -> None:
    part = rows["number"].to_numpy() // PART
    for number in np.unique(part).tolist():
        file = task.folder / f"{split}-{number:05}-{task.number:05}.rows"
        pq.write_table(rows.filter(pa.array(part == number)), file)


@dataclass(frozen=True)
class PartTask:
    """A part of a split to sort."""

    split: str
    number: int
    folder: Path


def order_part(task: PartTask) -> str:
    """Join a part's rows from all shards, in order.

    Returns:
        The path of the file.
    """
    files = sorted(task.folder.glob(f"{task.split}-{task.number:05}-*.rows"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    table = table.take(pc.sort_indices(table["number"])).drop_columns("number").combine_chunks()
    result = task.folder / f"{task.split}-{task.number:05}.parquet"
    pq.write_table(table, result)
    for file in files:
        file.unlink()
    return str(result)


def join_parts(parts: list[str], file: Path) -> None:
    """Join the parts into one Parquet file, one row group each."""
    with pq.ParquetWriter(file, pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))

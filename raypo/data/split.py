"""Which interactions make rows, and in which split.

The split plan covers all shards. It holds a few numbers per interaction and no row contents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from raypo.data.cold_items import split_cold_items
from raypo.data.shards import Shard, ShardedLog, load_column, load_shard
from raypo.data.time_order import refine, time_ranks

SPLITS = ("train", "validation", "test")
SplitBy = Literal["chronological", "leave-one-out", "by-user", "cold-items"]
HeldOut = Literal["every", "first", "last"]


@dataclass(frozen=True)
class SplitOptions:
    """How rows are made and divided.

    Attributes:
        by: `chronological` divides rows by `ratio` in the order of their time. `leave-one-out`
            takes the last row of a user with three or more for the test, the one before for
            validation. `by-user` divides users by `ratio`, at random with `seed`. `cold-items`
            divides interactions by `ratio` in time, some items without any in the first part.
        ratio: of train, validation and test.
        minimum_history: interactions that a row's user has before it.
        history_length: items of a history, for the training sequences.
        only_interacted: leave items without a kept interaction out of the data set.
        seed: of the random division of users, and of the cold items.
        cold_share: of the items, for `cold-items`.
        held_out: which of a user's rows in validation, and in test, are kept there: `every`, the
            `first` or the `last`. The others are no rows; later histories have them.
    """

    by: SplitBy
    ratio: tuple[int, int, int]
    minimum_history: int
    history_length: int
    only_interacted: bool
    seed: int
    cold_share: float = 0.1
    held_out: HeldOut = "every"


@dataclass(frozen=True)
class ShardSplit:
    """A shard's part of the split plan, over its kept interactions in their order.

    Attributes:
        kept: which of the shard's interactions those are, bool [interactions].
        is_row: whether one is a row's target, bool [kept].
        split: index in SPLITS of each row, [rows].
        number: position in its split of each row, [rows].
        user_ids: number in the data set of each of the shard's users, -1 for none, [users].
    """

    kept: np.ndarray
    is_row: np.ndarray
    split: np.ndarray
    number: np.ndarray
    user_ids: np.ndarray


@dataclass(frozen=True)
class SplitPlan:
    """The split of a data set; the shards' parts are in files (`load_shard_split`).

    Attributes:
        users: how many have interactions left. interactions: how many are kept.
        items: number in the data set of every item of the catalogue, -1 for none.
        popularity: of the data set's items in the training sequences.
        rows: how many each split has.
        cold: which of the data set's items are cold, bool [items]; None without such a split.
    """

    users: int
    interactions: int
    items: np.ndarray
    popularity: np.ndarray
    rows: dict[str, int]
    cold: np.ndarray | None = None


def positions_in_sequences(users: np.ndarray) -> np.ndarray:
    """Number of the user's earlier interactions, for grouped users; [interactions]."""
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    lengths = np.diff(np.append(starts, len(users)))
    return np.arange(len(users)) - np.repeat(starts, lengths)


def make_split_plan(log: ShardedLog, kept: list[np.ndarray], options: SplitOptions) -> SplitPlan:
    """Number users and rows, and split the rows.

    Args:
        log: the ordered shards.
        kept: of each shard, from `kept_interactions`.
        options: of the split.
    """
    cold_split = None
    if options.by == "cold-items":
        cold_split = split_cold_items(log, kept, options.ratio, options.cold_share, options.seed)
        kept = cold_split.kept
    user_ids, num_users = _number_users(log, kept)
    is_row, row_users = _rows(log.folder, kept, user_ids, options.minimum_history)
    row_masks = [refine(mask, rows) for mask, rows in zip(kept, is_row, strict=True)]
    rank = time_ranks(log.folder, row_masks)
    if cold_split is not None:
        periods = zip(cold_split.periods, is_row, strict=True)
        split = np.concatenate([own[rows] for own, rows in periods])
    else:
        split = _SPLITTERS[options.by](row_users, rank, num_users, options)
    if options.held_out != "every":
        stays = _chosen_of_users(row_users, split, options.held_out)
        cuts = np.cumsum([int(rows.sum()) for rows in is_row])[:-1]
        is_row = [refine(*own) for own in zip(is_row, np.split(stays, cuts), strict=True)]
        row_masks = [refine(mask, rows) for mask, rows in zip(kept, is_row, strict=True)]
        split, rank = split[stays], time_ranks(log.folder, row_masks)
    number = _numbers(rank, split)
    cuts = np.cumsum([int(rows.sum()) for rows in is_row])[:-1]
    shards = [
        ShardSplit(*parts)
        for parts in zip(
            kept, is_row, np.split(split, cuts), np.split(number, cuts), user_ids, strict=True
        )
    ]
    interacted, popularity = _count_items(log, shards, options.history_length)
    included = interacted > 0 if options.only_interacted else np.ones(log.num_items, dtype=bool)
    items = np.where(included, np.cumsum(included) - 1, -1)
    rows = np.bincount(split, minlength=len(SPLITS))
    for index, shard_split in enumerate(shards):
        _save(log.folder, index, shard_split)
    return SplitPlan(
        num_users,
        int(sum(mask.sum() for mask in kept)),
        items,
        popularity[included],
        dict(zip(SPLITS, rows.tolist(), strict=True)),
        None if cold_split is None else cold_split.cold[included],
    )


def _number_users(log: ShardedLog, kept: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Number users 0, 1, 2, … in the order of their first kept interaction."""
    times, orders, found = [], [], []
    for number, mask in enumerate(kept):
        shard = load_shard(log.folder, number)
        present, first = np.unique(shard.user[mask], return_index=True)
        times.append(shard.time[mask][first])
        orders.append(shard.order[mask][first])
        found.append(present)
    rank = np.empty(sum(map(len, found)), dtype=np.int64)
    rank[np.lexsort((np.concatenate(orders), np.concatenate(times)))] = np.arange(len(rank))
    ids, start = [], 0
    for count, present in zip(log.users, found, strict=True):
        mine = np.full(count, -1, dtype=np.int64)
        mine[present] = rank[start : start + len(present)]
        start += len(present)
        ids.append(mine)
    return ids, len(rank)


def _rows(
    folder: Path, kept: list[np.ndarray], user_ids: list[np.ndarray], minimum_history: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Which kept interactions are rows, by shard, and the users of all rows."""
    masks, users = [], []
    for number, mask in enumerate(kept):
        user = load_column(folder, number, "user")[mask]
        is_row = positions_in_sequences(user) >= minimum_history
        masks.append(is_row)
        users.append(user_ids[number][user[is_row]].astype(np.int32))
    return masks, np.concatenate(users)


def _chosen_of_users(users: np.ndarray, split: np.ndarray, which: HeldOut) -> np.ndarray:
    """Rows that stay, bool [rows]: of training all, of others the first or last of each user.

    Rows are ordered by user and time.
    """
    same = (users[1:] == users[:-1]) & (split[1:] == split[:-1])
    edge = np.r_[True, ~same] if which == "first" else np.r_[~same, True]
    stays: np.ndarray = edge | (split == 0)
    return stays


def _numbers(rank: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Position of every row in its split, in the order of ranks, int32 [rows]."""
    split_in_order = np.empty_like(split)
    split_in_order[rank] = split
    number_in_order = np.empty_like(rank)
    for which in range(len(SPLITS)):
        inside = split_in_order == which
        number_in_order[inside] = np.arange(int(inside.sum()), dtype=np.int32)
    return np.asarray(number_in_order[rank])


def _chronological(
    users: np.ndarray, rank: np.ndarray, num_users: int, options: SplitOptions
) -> np.ndarray:
    cuts = np.cumsum(options.ratio)[:2] * len(users) // sum(options.ratio)
    return np.searchsorted(cuts, rank, side="right").astype(np.int8)


def _leave_one_out(
    users: np.ndarray, rank: np.ndarray, num_users: int, options: SplitOptions
) -> np.ndarray:
    # Rows are ordered by user and time, so the last of a user's rows is the latest.
    after = positions_in_sequences(users[::-1])[::-1]
    enough = np.bincount(users, minlength=num_users)[users] >= len(SPLITS)
    return np.where(enough, np.maximum(2 - after, 0), 0).astype(np.int8)


def _by_user(
    users: np.ndarray, rank: np.ndarray, num_users: int, options: SplitOptions
) -> np.ndarray:
    present = np.unique(users)
    cuts = np.cumsum(options.ratio)[:2] * len(present) // sum(options.ratio)
    of_user = np.zeros(num_users, dtype=np.int8)
    drawn = np.random.default_rng([options.seed, len(SPLITS)]).permutation(present)
    of_user[drawn] = np.searchsorted(cuts, np.arange(len(present)), side="right")
    split: np.ndarray = of_user[users]
    return split


# Takes the users and time ranks of rows [rows], the number of users and the options; returns the
# index in SPLITS of each row.
_Splitter = Callable[[np.ndarray, np.ndarray, int, SplitOptions], np.ndarray]
_SPLITTERS: dict[SplitBy, _Splitter] = {
    "chronological": _chronological,
    "leave-one-out": _leave_one_out,
    "by-user": _by_user,
}


def _count_items(
    log: ShardedLog, shards: list[ShardSplit], history_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count each item's kept interactions, and those in training sequences, once each.

    A user's training sequence is the history of the user's first training row, then the targets.
    """
    interacted = np.zeros(log.num_items, dtype=np.int64)
    popularity = np.zeros(log.num_items, dtype=np.int64)
    for number, part in enumerate(shards):
        shard = load_shard(log.folder, number)
        user, item = shard.user[part.kept], shard.item[part.kept]
        interacted += np.bincount(item, minlength=log.num_items)
        targets = np.flatnonzero(part.is_row)[part.split == 0]
        if not len(targets):
            continue
        _, first = np.unique(user[targets], return_index=True)
        counted = np.zeros(len(item), dtype=bool)
        counted[targets] = True
        for start in targets[first]:
            counted[max(0, start - history_length) : start] |= (
                user[max(0, start - history_length) : start] == user[start]
            )
        popularity += np.bincount(item[counted], minlength=log.num_items)
    return interacted, popularity


def _save(folder: Path, number: int, part: ShardSplit) -> None:
    np.savez(folder / f"split-{number:05}.npz", **vars(part))


def load_shard_split(folder: Path, number: int) -> ShardSplit:
    """Read a shard's part of the plan, written by `make_split_plan`."""
    with np.load(folder / f"split-{number:05}.npz", allow_pickle=False) as arrays:
        return ShardSplit(**{name: arrays[name] for name in arrays.files})


def kept_columns(shard: Shard, part: ShardSplit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, item and time of the shard's kept interactions."""
    return shard.user[part.kept], shard.item[part.kept], shard.time[part.kept]

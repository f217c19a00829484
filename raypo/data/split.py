"""What becomes of every interaction: which are kept, which make rows, and in which split.

The plan looks at all shards, but holds a few numbers an interaction and nothing of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from raypo.data.shards import Shard, load_column, load_shard

SPLITS = ("train", "validation", "test")
_SORTED_AT_ONCE = 2_000_000
_SAMPLED_TIMES = 500_000
SplitBy = Literal["chronological", "leave-one-out", "by-user"]


@dataclass(frozen=True)
class ShardPlan:
    """A shard's share of the plan, over its kept interactions in their order.

    Attributes:
        kept: which of the shard's interactions those are, bool, [interactions].
        is_row: whether one is a row's target, bool, [kept].
        split, number: of each row: place in SPLITS, and place in the split, [rows].
        user_ids: number in the data set of each of the shard's users, -1 for none, [users].
    """

    kept: np.ndarray
    is_row: np.ndarray
    split: np.ndarray
    number: np.ndarray
    user_ids: np.ndarray


@dataclass(frozen=True)
class Plan:
    """The plan of a data set, whose shards' shares lie in files.

    Attributes:
        users: how many have interactions left. interactions: kept.
        items: number in the data set of every item of the catalogue, -1 for none.
        popularity: of the data set's items in the training sequences.
        rows: of each split.
    """

    users: int
    interactions: int
    items: np.ndarray
    popularity: np.ndarray
    rows: dict[str, int]


def positions_in_sequences(users: np.ndarray) -> np.ndarray:
    """How many interactions of the same user stand before each, for users in runs; [rows]."""
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    lengths = np.diff(np.append(starts, len(users)))
    return np.arange(len(users)) - np.repeat(starts, lengths)


def keep(
    folder: Path,
    users: list[int],
    num_items: int,
    minimum_user: int,
    minimum_item: int,
    maximum_rows: int | None,
) -> list[np.ndarray]:
    """Which interactions of each shard stay.

    First users and items with too few interactions go, again and again until all that are left
    have enough (with both minima k: the k-core); then all but the last `maximum_rows`.

    Args:
        folder: of the shards.
        users: of each shard.
        num_items: in the catalogue.
        minimum_user: interactions that a user needs.
        minimum_item: interactions that an item needs.
        maximum_rows: None keeps all.
    """
    masks = [load_column(folder, number, "kept") for number in range(len(users))]
    if minimum_user > 1 or minimum_item > 1:
        masks = _core(folder, users, num_items, minimum_user, minimum_item, masks)
    if maximum_rows is not None:
        masks = _latest(folder, masks, maximum_rows)
    return masks


def _core(
    folder: Path,
    users: list[int],
    num_items: int,
    minimum_user: int,
    minimum_item: int,
    masks: list[np.ndarray],
) -> list[np.ndarray]:
    offsets = np.cumsum([0, *users])
    shards = (load_shard(folder, number) for number in range(len(users)))
    pairs = [
        (shard.user[mask] + offsets[number].astype(np.int32), shard.item[mask])
        for number, (shard, mask) in enumerate(zip(shards, masks, strict=True))
    ]
    user = np.concatenate([pair[0] for pair in pairs])
    item = np.concatenate([pair[1] for pair in pairs])
    alive = np.ones(len(user), dtype=bool)
    while True:
        enough_of_user = np.bincount(user[alive], minlength=offsets[-1]) >= minimum_user
        enough_of_item = np.bincount(item[alive], minlength=num_items) >= minimum_item
        still = alive & enough_of_user[user] & enough_of_item[item]
        if still.sum() == alive.sum():
            break
        alive = still
    cuts = np.cumsum([len(pair[0]) for pair in pairs])[:-1]
    return [_refined(mask, part) for mask, part in zip(masks, np.split(alive, cuts), strict=True)]


def _latest(folder: Path, masks: list[np.ndarray], count: int) -> list[np.ndarray]:
    last = _ranks(folder, masks)
    last = last >= len(last) - count
    cuts = np.cumsum([int(mask.sum()) for mask in masks])[:-1]
    return [_refined(mask, part) for mask, part in zip(masks, np.split(last, cuts), strict=True)]


def _ranks(folder: Path, masks: list[np.ndarray]) -> np.ndarray:
    """Place of every chosen interaction in the order of time and log, int32 [chosen].

    One stretch of time after the other is sorted, and its columns are read for that alone: all of
    them at once take several times the memory of the result.
    """
    ends = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
    rank = np.empty(ends[-1], dtype=np.int32)
    stretch = _stretches(folder, masks, ends)
    done = 0
    for number in range(int(stretch.max(initial=-1)) + 1):
        own = [np.flatnonzero(stretch[a:b] == number) for a, b in pairwise(ends)]
        time, order = (
            np.concatenate(
                [load_column(folder, n, name)[masks[n]][places] for n, places in enumerate(own)]
            )
            for name in ("time", "order")
        )
        places = np.concatenate([start + one for start, one in zip(ends, own, strict=False)])
        sequence = np.arange(done, done + len(places), dtype=np.int32)
        rank[places[np.lexsort((order, time))]] = sequence
        done += len(places)
    return rank


def _stretches(folder: Path, masks: list[np.ndarray], ends: np.ndarray) -> np.ndarray:
    """Which of some stretches of time, about equally full, each interaction lies in, int16."""
    every = 1 + int(ends[-1]) // _SAMPLED_TIMES
    times = (load_column(folder, n, "time")[mask] for n, mask in enumerate(masks))
    sample = np.concatenate([time[::every] for time in times])
    stretch = np.zeros(ends[-1], dtype=np.int16)
    count = 1 + int(ends[-1]) // _SORTED_AT_ONCE
    if count > 1:
        edges = np.quantile(sample, np.linspace(0, 1, count + 1)[1:-1])
        for n, mask in enumerate(masks):
            time = load_column(folder, n, "time")[mask]
            stretch[ends[n] : ends[n + 1]] = np.searchsorted(edges, time, side="right")
    return stretch


def _numbers(rank: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Place of every row in its split, in the order of ranks, int32 [rows]."""
    split_in_order = np.empty_like(split)
    split_in_order[rank] = split
    number_in_order = np.empty_like(rank)
    for which in range(len(SPLITS)):
        inside = split_in_order == which
        number_in_order[inside] = np.arange(int(inside.sum()), dtype=np.int32)
    return np.asarray(number_in_order[rank])


def _refined(mask: np.ndarray, part: np.ndarray) -> np.ndarray:
    refined = mask.copy()
    refined[mask] = part
    return refined


def make_plan(
    folder: Path,
    users: list[int],
    kept: list[np.ndarray],
    num_items: int,
    only_interacted: bool,
    minimum_history: int,
    split_by: SplitBy,
    shares: tuple[int, int, int],
    history_length: int,
    seed: int,
) -> Plan:
    """Number users and rows, and split the rows.

    Args:
        folder: of the shards.
        users: of each shard.
        kept: as `keep` gives them.
        num_items: in the catalogue.
        only_interacted: leave items out of the data set that no kept interaction has.
        minimum_history: interactions that a row's user has before it.
        split_by: `chronological`, rows by `shares` in the order of their time; `leave-one-out`, the
            last row of a user with three or more is for the test, the one before for validation;
            `by-user`, users by `shares`, drawn with `seed`.
        shares: of train, validation and test.
        history_length: items of a history, for the training sequences.
        seed: of the draw of users.
    """
    user_ids, num_users = _number_users(folder, users, kept)
    is_row, row_users = _rows(folder, kept, user_ids, minimum_history)
    row_masks = [_refined(mask, rows) for mask, rows in zip(kept, is_row, strict=True)]
    rank = _ranks(folder, row_masks)
    split = _SPLITTERS[split_by](row_users, rank, shares, num_users, seed)
    number = _numbers(rank, split)
    cuts = np.cumsum([int(rows.sum()) for rows in is_row])[:-1]
    shards = [
        ShardPlan(*parts)
        for parts in zip(
            kept, is_row, np.split(split, cuts), np.split(number, cuts), user_ids, strict=True
        )
    ]
    interacted, popularity = _count_items(folder, shards, num_items, history_length)
    stays = interacted > 0 if only_interacted else np.ones(num_items, dtype=bool)
    items = np.where(stays, np.cumsum(stays) - 1, -1)
    rows = np.bincount(split, minlength=len(SPLITS))
    for place, share in enumerate(shards):
        _save(folder, place, share)
    return Plan(
        num_users,
        int(sum(mask.sum() for mask in kept)),
        items,
        popularity[stays],
        dict(zip(SPLITS, rows.tolist(), strict=True)),
    )


def _number_users(
    folder: Path, users: list[int], kept: list[np.ndarray]
) -> tuple[list[np.ndarray], int]:
    """Users count 0, 1, 2, … in the order of their first kept interaction."""
    times, orders, found = [], [], []
    for number, mask in enumerate(kept):
        shard = load_shard(folder, number)
        present, first = np.unique(shard.user[mask], return_index=True)
        times.append(shard.time[mask][first])
        orders.append(shard.order[mask][first])
        found.append(present)
    rank = np.empty(sum(map(len, found)), dtype=np.int64)
    rank[np.lexsort((np.concatenate(orders), np.concatenate(times)))] = np.arange(len(rank))
    ids, start = [], 0
    for count, present in zip(users, found, strict=True):
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


def _chronological(
    users: np.ndarray, rank: np.ndarray, shares: tuple[int, int, int], num: int, seed: int
) -> np.ndarray:
    cuts = np.cumsum(shares)[:2] * len(users) // sum(shares)
    return np.searchsorted(cuts, rank, side="right").astype(np.int8)


def _leave_one_out(
    users: np.ndarray, rank: np.ndarray, shares: tuple[int, int, int], num: int, seed: int
) -> np.ndarray:
    # Rows stand by user and time, so that the last of a run is the user's latest.
    after = positions_in_sequences(users[::-1])[::-1]
    enough = np.bincount(users, minlength=num)[users] >= len(SPLITS)
    return np.where(enough, np.maximum(2 - after, 0), 0).astype(np.int8)


def _by_user(
    users: np.ndarray, rank: np.ndarray, shares: tuple[int, int, int], num: int, seed: int
) -> np.ndarray:
    present = np.unique(users)
    cuts = np.cumsum(shares)[:2] * len(present) // sum(shares)
    of_user = np.zeros(num, dtype=np.int8)
    drawn = np.random.default_rng([seed, len(SPLITS)]).permutation(present)
    of_user[drawn] = np.searchsorted(cuts, np.arange(len(present)), side="right")
    split: np.ndarray = of_user[users]
    return split


_Splitter = Callable[
    [np.ndarray, np.ndarray, tuple[int, int, int], int, int],
    np.ndarray,
]
_SPLITTERS: dict[SplitBy, _Splitter] = {
    "chronological": _chronological,
    "leave-one-out": _leave_one_out,
    "by-user": _by_user,
}


def _count_items(
    folder: Path, shards: list[ShardPlan], num_items: int, history_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kept interactions of every item, and those in training sequences, each counted once.

    A user's training sequence is the history of the user's first training row, then the targets.
    """
    interacted = np.zeros(num_items, dtype=np.int64)
    popularity = np.zeros(num_items, dtype=np.int64)
    for number, plan in enumerate(shards):
        shard = load_shard(folder, number)
        user, item = shard.user[plan.kept], shard.item[plan.kept]
        interacted += np.bincount(item, minlength=num_items)
        targets = np.flatnonzero(plan.is_row)[plan.split == 0]
        if not len(targets):
            continue
        _, first = np.unique(user[targets], return_index=True)
        counted = np.zeros(len(item), dtype=bool)
        counted[targets] = True
        for start in targets[first]:
            counted[max(0, start - history_length) : start] |= (
                user[max(0, start - history_length) : start] == user[start]
            )
        popularity += np.bincount(item[counted], minlength=num_items)
    return interacted, popularity


def _save(folder: Path, number: int, plan: ShardPlan) -> None:
    np.savez(folder / f"plan-{number:05}.npz", **vars(plan))


def load_plan(folder: Path, number: int) -> ShardPlan:
    """A shard's share of the plan that `make_plan` wrote beside it."""
    with np.load(folder / f"plan-{number:05}.npz", allow_pickle=False) as arrays:
        return ShardPlan(**{name: arrays[name] for name in arrays.files})


def kept_interactions(shard: Shard, plan: ShardPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, item and time of the shard's kept interactions."""
    return shard.user[plan.kept], shard.item[plan.kept], shard.time[plan.kept]

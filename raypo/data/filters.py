"""Which interactions of a log are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypo.data.shards import ShardedLog, load_column, load_shard
from raypo.data.time_order import refine, time_ranks


@dataclass(frozen=True)
class Filters:
    """What is left out of a log.

    Attributes:
        minimum_user: interactions that a user needs.
        minimum_item: interactions that an item needs.
        maximum_interactions: only this many of the latest are kept; None keeps all.
    """

    minimum_user: int = 0
    minimum_item: int = 0
    maximum_interactions: int | None = None


def kept_interactions(log: ShardedLog, filters: Filters) -> list[np.ndarray]:
    """Which interactions of each shard are kept, one bool array [interactions] per shard.

    First, users and items with too few interactions are removed, repeatedly until all that remain
    have enough (with both minima k: the k-core). Then only the last `maximum_interactions` are
    kept.
    """
    masks = [load_column(log.folder, number, "kept") for number in range(len(log.users))]
    if filters.minimum_user > 1 or filters.minimum_item > 1:
        masks = _core(log, filters, masks)
    if filters.maximum_interactions is not None:
        masks = _latest(log.folder, masks, filters.maximum_interactions)
    return masks


def _core(log: ShardedLog, filters: Filters, masks: list[np.ndarray]) -> list[np.ndarray]:
    offsets = np.cumsum([0, *log.users])
    shards = (load_shard(log.folder, number) for number in range(len(log.users)))
    pairs = [
        (shard.user[mask] + offsets[number].astype(np.int32), shard.item[mask])
        for number, (shard, mask) in enumerate(zip(shards, masks, strict=True))
    ]
    user = np.concatenate([pair[0] for pair in pairs])
    item = np.concatenate([pair[1] for pair in pairs])
    remaining = np.ones(len(user), dtype=bool)
    while True:
        enough_of_user = np.bincount(user[remaining], minlength=offsets[-1]) >= filters.minimum_user
        enough_of_item = (
            np.bincount(item[remaining], minlength=log.num_items) >= filters.minimum_item
        )
        narrowed = remaining & enough_of_user[user] & enough_of_item[item]
        if narrowed.sum() == remaining.sum():
            break
        remaining = narrowed
    cuts = np.cumsum([len(pair[0]) for pair in pairs])[:-1]
    return [refine(mask, part) for mask, part in zip(masks, np.split(remaining, cuts), strict=True)]


def _latest(folder: Path, masks: list[np.ndarray], count: int) -> list[np.ndarray]:
    rank = time_ranks(folder, masks)
    last = rank >= len(rank) - count
    cuts = np.cumsum([int(mask.sum()) for mask in masks])[:-1]
    return [refine(mask, part) for mask, part in zip(masks, np.split(last, cuts), strict=True)]

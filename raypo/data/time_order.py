"""The order of interactions in time, over all shards of a log."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from raypo.data.shards import load_column

_SORTED_AT_ONCE = 2_000_000
_SAMPLED_TIMES = 500_000


def time_ranks(folder: Path, masks: list[np.ndarray]) -> np.ndarray:
    """Position of every chosen interaction in the order of time and log, int32 [chosen].

    Periods of time are sorted one after the other. Sorting everything at once would take several
    times the memory of the result.

    Args:
        folder: of the shards.
        masks: which interactions are chosen, one bool array [interactions] per shard.
    """
    ends = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
    rank = np.empty(ends[-1], dtype=np.int32)
    period = _periods(folder, masks, ends)
    done = 0
    for number in range(int(period.max(initial=-1)) + 1):
        own = [np.flatnonzero(period[a:b] == number) for a, b in pairwise(ends)]
        time, order = (
            np.concatenate(
                [load_column(folder, n, name)[masks[n]][inside] for n, inside in enumerate(own)]
            )
            for name in ("time", "order")
        )
        positions = np.concatenate([start + one for start, one in zip(ends, own, strict=False)])
        sequence = np.arange(done, done + len(positions), dtype=np.int32)
        rank[positions[np.lexsort((order, time))]] = sequence
        done += len(positions)
    return rank


def _periods(folder: Path, masks: list[np.ndarray], ends: np.ndarray) -> np.ndarray:
    """Number of each interaction's period, of about equally full ones, int16 [chosen]."""
    every = 1 + int(ends[-1]) // _SAMPLED_TIMES
    times = (load_column(folder, n, "time")[mask] for n, mask in enumerate(masks))
    sample = np.concatenate([time[::every] for time in times])
    period = np.zeros(ends[-1], dtype=np.int16)
    count = 1 + int(ends[-1]) // _SORTED_AT_ONCE
    if count > 1:
        edges = np.quantile(sample, np.linspace(0, 1, count + 1)[1:-1])
        for n, mask in enumerate(masks):
            time = load_column(folder, n, "time")[mask]
            period[ends[n] : ends[n + 1]] = np.searchsorted(edges, time, side="right")
    return period


def refine(mask: np.ndarray, part: np.ndarray) -> np.ndarray:
    """A mask [interactions] narrowed by another over its chosen entries [chosen]."""
    refined = mask.copy()
    refined[mask] = part
    return refined

"""HitRatio@1 of groups of rows: by the target's popularity or place, and the user's history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.intervals import Resampling, bootstrap_interval

QUINTILES = ("least popular", "2nd", "3rd", "4th", "most popular")
QUARTERS = ("first quarter", "2nd", "3rd", "last")
_HISTORY_LENGTHS = ((1, 3), (4, 6), (7, 9), (10, None))
_OCCURRENCES = ((0, 0), (1, 5), (6, 20), (21, 100), (101, None))


def breakdowns(
    predictions: pd.DataFrame, hits: np.ndarray, popularity: np.ndarray, resampling: Resampling
) -> dict[str, list[dict[str, Any]]]:
    """HitRatio@1 with its interval by group, for every breakdown.

    Args:
        predictions: columns user_id, target, history, candidates.
        hits: chance of a hit at rank 1, [n].
        popularity: occurrences of each item in the training sequences, [items].
        resampling: of the intervals.

    Returns:
        By breakdown, its groups that have rows: group, n, HitRatio@1, interval.
    """
    users, targets = predictions["user_id"].to_numpy(), predictions["target"].to_numpy()
    quintile = popularity_quintiles(popularity)[targets]
    length = predictions["history"].map(len).to_numpy()
    by_popularity = [(name, quintile == number) for number, name in enumerate(QUINTILES)]
    grouped = {
        "popularity": by_popularity,
        "target in training": _ranges(popularity[targets], _OCCURRENCES),
        "history length": _ranges(length, _HISTORY_LENGTHS),
        "place of the target": _quarters(predictions["candidates"].to_list(), targets),
    }
    return {
        breakdown: [
            _group(name, hits[members], users[members], resampling)
            for name, members in groups
            if members.any()
        ]
        for breakdown, groups in grouped.items()
    }


def _ranges(
    values: np.ndarray, ranges: Sequence[tuple[int, int | None]]
) -> list[tuple[str, np.ndarray]]:
    """The rows [n] whose value lies in each range, both ends included, with the range's name."""
    groups = []
    for low, high in ranges:
        inside = (values >= low) & (values <= (np.inf if high is None else high))
        name = f"{low} and more" if high is None else f"{low} to {high}"
        groups.append((str(low) if high == low else name, inside))
    return groups


def _quarters(
    candidates: Sequence[Sequence[int]], targets: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """The rows [n] whose target stands in each quarter of its list, with the quarter's name."""
    places = [list(row).index(target) for row, target in zip(candidates, targets, strict=True)]
    sizes = [len(row) for row in candidates]
    quarter = (4 * np.array(places)) // np.array(sizes)
    return [(name, quarter == number) for number, name in enumerate(QUARTERS)]


def _group(
    name: str, hits: np.ndarray, users: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    low, high = bootstrap_interval(hits, resampling.num_bootstrap, resampling.seed, users=users)
    ratio = float(hits.mean())
    return {"group": name, "n": len(hits), "HitRatio@1": ratio, "interval": [low, high]}

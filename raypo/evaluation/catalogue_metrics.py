"""What a model recommends as a whole: how much of the catalogue, how evenly, how popular.

Definitions follow RecBole's (ItemCoverage, GiniIndex, TailPercentage, AveragePopularity) for one
recommended item a user. Coverage and Gini index are no means over users: resampling users with
replacement loses items and would bias them, so that their intervals are a jackknife's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_TAIL_SHARE = 0.1  # of the items that training saw
_NORMAL_95 = 1.959963984540054


def coverage(counts: np.ndarray) -> float:
    """Share of the catalogue that is recommended to anybody.

    Args:
        counts: recommendations of each item, [items].
    """
    return float((counts > 0).mean())


def gini_index(counts: np.ndarray) -> float:
    """0 where every item is recommended equally often, towards 1 where one item is all there is.

    Args:
        counts: recommendations of each item, [items].
    """
    ordered = np.sort(counts)
    total, items = ordered.sum(), len(ordered)
    if not total:
        return float("nan")
    weights = 2 * np.arange(1, items + 1) - items - 1
    return float((weights * ordered).sum() / (items * total))


def jackknife_interval(
    statistic: Callable[[np.ndarray], float], counts: np.ndarray
) -> tuple[float, float] | None:
    """95% interval of a statistic of counts, one recommendation left out at a time.

    Items with equal counts are alike, so that each count is tried once.

    Args:
        statistic: of counts [items].
        counts: recommendations of each item, [items].

    Returns:
        None with fewer than two recommendations.
    """
    n = int(counts.sum())
    if n < 2:
        return None
    values, weights = [], []
    for count in np.unique(counts[counts > 0]).tolist():
        alike = np.flatnonzero(counts == count)
        without = counts.copy()
        without[alike[0]] -= 1
        values.append(statistic(without))
        weights.append(count * len(alike))
    left_out, times = np.array(values), np.array(weights)
    mean = (left_out * times).sum() / n
    error = math.sqrt((n - 1) / n * (times * (left_out - mean) ** 2).sum())
    whole = statistic(counts)
    return whole - _NORMAL_95 * error, whole + _NORMAL_95 * error


def tail_items(popularity: np.ndarray) -> np.ndarray:
    """Which items are among the tenth least popular of those that training saw, bool [items].

    Ties go by item number.
    """
    seen = np.flatnonzero(popularity > 0)
    order = seen[np.argsort(popularity[seen], kind="stable")]
    tail = np.zeros(len(popularity), dtype=bool)
    tail[order[: max(int(len(order) * _TAIL_SHARE), 1)]] = True
    return tail


def popularity_quintiles(popularity: np.ndarray) -> np.ndarray:
    """Quintile 0 (least popular) to 4 of each item, by rank; ties by item id."""
    order = np.argsort(popularity, kind="stable")
    quintile = np.empty(len(popularity), dtype=np.int64)
    quintile[order] = np.arange(len(popularity)) * 5 // len(popularity)
    return quintile

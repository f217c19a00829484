"""Metrics of all recommendations together: coverage of the catalogue, evenness, popularity.

Definitions follow RecBole (ItemCoverage, GiniIndex, TailPercentage, AveragePopularity) for one
recommended item per user. Coverage and Gini index are not means over users: resampling users with
replacement loses items and would bias them, so their intervals come from the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_TAIL_FRACTION = 0.1  # of the items in training sequences
_NORMAL_95 = 1.959963984540054


def coverage(counts: np.ndarray) -> float:
    """Fraction of the catalogue that is recommended at least once.

    Args:
        counts: recommendations of each item, [items].
    """
    return float((counts > 0).mean())


def gini_index(counts: np.ndarray) -> float:
    """Gini index: 0 where all items are recommended equally often, near 1 where only one is.

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
    """95% jackknife interval of a statistic of counts, leaving out one recommendation at a time.

    Items with equal counts give the same value, so each distinct count is computed once.

    Args:
        statistic: function of counts [items].
        counts: recommendations of each item, [items].

    Returns:
        None with fewer than two recommendations.
    """
    n = int(counts.sum())
    if n < 2:
        return None
    values, weights = [], []
    for count in np.unique(counts[counts > 0]).tolist():
        items = np.flatnonzero(counts == count)
        without = counts.copy()
        without[items[0]] -= 1
        values.append(statistic(without))
        weights.append(count * len(items))
    estimates, times = np.array(values), np.array(weights)
    mean = (estimates * times).sum() / n
    error = math.sqrt((n - 1) / n * (times * (estimates - mean) ** 2).sum())
    value = statistic(counts)
    return value - _NORMAL_95 * error, value + _NORMAL_95 * error


def tail_items(popularity: np.ndarray) -> np.ndarray:
    """Mask [items] of the least popular tenth of the items in training sequences.

    Ties are broken by item id.
    """
    seen = np.flatnonzero(popularity > 0)
    order = seen[np.argsort(popularity[seen], kind="stable")]
    tail = np.zeros(len(popularity), dtype=bool)
    tail[order[: max(int(len(order) * _TAIL_FRACTION), 1)]] = True
    return tail


def popularity_quintiles(popularity: np.ndarray) -> np.ndarray:
    """Popularity quintile, 0 (least popular) to 4, of each item [items]; ties by item id."""
    order = np.argsort(popularity, kind="stable")
    quintile = np.empty(len(popularity), dtype=np.int64)
    quintile[order] = np.arange(len(popularity)) * 5 // len(popularity)
    return quintile

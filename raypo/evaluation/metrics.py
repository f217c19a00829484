"""Metrics as pure functions with one value per user.

A metric of tied candidates is its expectation under random tie-breaking: a model that gives all of
20 candidates the same score has a HitRatio@1 of 1/20, whatever the position of the target.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of candidates with a score above the target's and of others with the same, [n] each.

    Args:
        scores: of the candidates, [n, c].
        targets: position of the target among the candidates, [n].
    """
    own = scores[np.arange(len(scores)), targets][:, None]
    return (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1


def hit_at(k: int, above: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Probability [n] that the target is among the first k."""
    hits: np.ndarray = np.clip((k - above) / (ties + 1), 0.0, 1.0)
    return hits


def ndcg_at(k: int, above: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Expected gain [n] 1 / log2(rank + 1) of the target if among the first k (one target)."""
    return _expected_gain(lambda rank: np.where(rank <= k, 1 / np.log2(rank + 1), 0.0), above, ties)


def reciprocal_rank(above: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Expected 1 / rank [n] of the target."""
    return _expected_gain(lambda rank: 1 / rank, above, ties)


def _expected_gain(
    gain: Callable[[np.ndarray], np.ndarray], above: np.ndarray, ties: np.ndarray
) -> np.ndarray:
    offsets = np.arange(int(ties.max(initial=0)) + 1)
    ranks = above[:, None] + offsets + 1.0
    possible = offsets <= ties[:, None]
    expected: np.ndarray = np.where(possible, gain(ranks), 0.0).sum(axis=1) / (ties + 1)
    return expected


def popularity_bias(
    recommended: np.ndarray, histories: list[np.ndarray], popularity: np.ndarray
) -> np.ndarray:
    """Log popularity difference [n] between recommended items and the items a user consumed.

    LogPop(recommended item), or its mean over a list of them, - mean over the history of
    LogPop(item), with LogPop(i) = log(1 + occurrences of i in all training sequences): NAPO (arXiv
    2508.09653), appendix D, and the user-level log popularity difference of Lichtenberg et al. 2024
    (arXiv 2406.01285) for one recommended item. 0 follows the user's own taste for popular items;
    above 0 favours them.

    Args:
        recommended: item ids, [n] or lists [n, k].
        histories: n arrays of item ids.
        popularity: occurrences of each item in the training sequences, [items].
    """
    logs = np.log(popularity + 1.0)
    consumed = np.array([logs[np.asarray(history)].mean() for history in histories])
    own = logs[recommended]
    difference: np.ndarray = (own if own.ndim == 1 else own.mean(axis=1)) - consumed
    return difference

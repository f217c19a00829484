"""Metrics as pure per-user functions, and their summary with intervals.

Ties: a metric of tied candidates is its expectation under random tie-breaking, so that a model that
scores everything alike gets 1/20 among 20 candidates, wherever the target stands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.intervals import bootstrap_interval


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many candidates score above the target, and how many others tie with it.

    Args:
        scores: [n, c] candidate scores.
        targets: [n] the target's position among the candidates.
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


def _expected_gain(gain: Any, above: np.ndarray, ties: np.ndarray) -> np.ndarray:
    offsets = np.arange(int(ties.max(initial=0)) + 1)
    ranks = above[:, None] + offsets + 1.0
    possible = offsets <= ties[:, None]
    expected: np.ndarray = np.where(possible, gain(ranks), 0.0).sum(axis=1) / (ties + 1)
    return expected


def popularity_bias(
    recommended: np.ndarray, histories: list[np.ndarray], popularity: np.ndarray
) -> np.ndarray:
    """Log popularity difference [n]: recommended items against those a user consumed.

    log p(recommended item) - mean over the history of log p(item), with p(i) = (1 + occurrences of
    i in the training sequences) / (their sum). 0 follows the user's own taste for the popular,
    above 0 favours popular items. This is the user-level log popularity difference of Lichtenberg
    et al. 2024 (arXiv 2406.01285) for one recommended item. NAPO's appendix D (arXiv 2508.09653)
    uses a metric of this name; its text and code were not at hand, so figures of that paper are
    not to be compared with these before the definition is checked.

    Args:
        recommended: [n] item ids.
        histories: n arrays of item ids.
        popularity: occurrences of each item in the training sequences.
    """
    logs = np.log(popularity + 1.0)
    consumed = np.array([logs[np.asarray(history)].mean() for history in histories])
    difference: np.ndarray = logs[recommended] - consumed
    return difference


def summarise(
    predictions: pd.DataFrame, popularity: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """Metrics of each way of answering that is present, as `metrics.json` holds them.

    Args:
        predictions: columns of `raypo.evaluation.predictions`.
        popularity: occurrences of each item in the training sequences.
        resamples: bootstrap resamples.
        seed: of the resamples.

    Returns:
        `generate` and `likelihood`, each with its metrics, `n` and 95% `intervals`; a metric that
        has no value (a ratio over no valid rows) is None.
    """
    summary: dict[str, Any] = {}
    asked = predictions[predictions["answer"].notna() | predictions["error"].notna()]
    if len(asked):
        summary["generate"] = _summary(_generated(asked, popularity), resamples, seed)
    if predictions["logps"].notna().all():
        summary["likelihood"] = _summary(_ranked(predictions, popularity), resamples, seed)
    return summary


# A metric's per-user values and denominators; its value is sum(values) / sum(denominators).
_PerUser = dict[str, tuple[np.ndarray, np.ndarray | None]]


def _generated(predictions: pd.DataFrame, popularity: np.ndarray) -> _PerUser:
    picked = predictions["answer_item"]
    valid = picked.notna().to_numpy()
    items = picked.fillna(0).astype("int64").to_numpy()
    hits = valid & (items == predictions["target"].to_numpy())
    bias = popularity_bias(items, list(predictions["history"]), popularity)
    counted = valid.astype(np.float64)
    return {
        "HitRatio@1": (hits.astype(np.float64), None),
        "ValidRatio": (counted, None),
        "PopularityBias": (np.where(valid, bias, 0.0), counted),
        "HitRatio@1/valid": (hits.astype(np.float64), counted),
    }


def _ranked(predictions: pd.DataFrame, popularity: np.ndarray) -> _PerUser:
    scores = np.stack(predictions["logps"].to_list())
    candidates = np.stack(predictions["candidates"].to_list())
    targets = (candidates == predictions["target"].to_numpy()[:, None]).argmax(axis=1)
    above, ties = target_ranks(scores, targets)
    top = candidates[np.arange(len(scores)), scores.argmax(axis=1)]
    return {
        "HitRatio@1": (hit_at(1, above, ties), None),
        "HitRatio@5": (hit_at(5, above, ties), None),
        "NDCG@5": (ndcg_at(5, above, ties), None),
        "NDCG@10": (ndcg_at(10, above, ties), None),
        "MRR": (reciprocal_rank(above, ties), None),
        "PopularityBias": (popularity_bias(top, list(predictions["history"]), popularity), None),
    }


def _summary(per_user: _PerUser, resamples: int, seed: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for name, (values, weights) in per_user.items():
        bottom = len(values) if weights is None else weights.sum()
        metrics[name] = float(values.sum() / bottom) if bottom else None
        low, high = bootstrap_interval(values, resamples, seed, weights)
        intervals[name] = None if math.isnan(low) or not bottom else [low, high]
    metrics["n"] = len(next(iter(per_user.values()))[0])
    metrics["intervals"] = intervals
    return metrics

"""`metrics.json`: what predictions say, with intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.calibration import calibrate
from raypo.evaluation.catalogue_metrics import (
    coverage,
    gini_index,
    jackknife_interval,
    popularity_quintiles,
    tail_items,
)
from raypo.evaluation.intervals import bootstrap_interval
from raypo.evaluation.metrics import hit_at, ndcg_at, popularity_bias, reciprocal_rank, target_ranks

# A metric's per-user values and denominators; its value is sum(values) / sum(denominators).
_PerUser = dict[str, tuple[np.ndarray, np.ndarray | None]]
QUINTILES = ("least popular", "2nd", "3rd", "4th", "most popular")
_LENGTHS = ((1, 3), (4, 6), (7, 9), (10, None))


def summarise(
    predictions: pd.DataFrame,
    popularity: np.ndarray,
    num_bootstrap: int,
    seed: int,
    length_normalised: bool = False,
    calibrated: bool = False,
) -> dict[str, Any]:
    """Metrics of each way of answering that is present, as `metrics.json` holds them.

    Args:
        predictions: columns of `raypo.evaluation.predictions`.
        popularity: occurrences of each item in the training sequences.
        num_bootstrap: bootstrap num_bootstrap.
        seed: of the num_bootstrap.
        length_normalised: rank by log-prob a token.
        calibrated: scores are log-probs of a language model, whose calibration means something.

    Returns:
        `generate`, `constrained` and `likelihood`, each with its metrics, `n`, 95% `intervals` and
        `breakdowns`; a metric that has no value (a ratio over no valid rows) is None.
    """
    summary: dict[str, Any] = {}
    for way, text in (("generate", "answer"), ("constrained", "constrained")):
        answered = predictions[text].notna() if text in predictions else predictions["row"] < 0
        failed = predictions["error"].notna()
        # Errors alone do not say which way was asked: greedy answers are the usual one.
        if answered.any() or (way == "generate" and failed.any()):
            asked = predictions[answered | failed]
            summary[way] = _answered(asked, way, popularity, num_bootstrap, seed)
    if predictions["logps"].notna().all():
        scores = ranking_scores(predictions, length_normalised)
        summary["likelihood"] = _ranked(predictions, scores, popularity, num_bootstrap, seed)
        if calibrated:
            calibration = calibrate(scores, target_places(predictions))
            summary["likelihood"]["CalibrationError"] = calibration.error
            summary["likelihood"]["calibration"] = [list(one) for one in calibration.bins]
        if "order_logps" in predictions and predictions["order_logps"].notna().all():
            summary["likelihood"]["orders"] = _orders(predictions, length_normalised)
    return summary


def ranking_scores(predictions: pd.DataFrame, length_normalised: bool = False) -> np.ndarray:
    """What candidates are ranked by, [n, c]: log-probs, or log-probs a token."""
    scores = np.stack(predictions["logps"].to_list())
    if length_normalised and predictions["lengths"].notna().all():
        scores = scores / np.stack(predictions["lengths"].to_list())
    return np.asarray(scores)


def target_places(predictions: pd.DataFrame) -> np.ndarray:
    """The target's place among the candidates, [n]."""
    candidates = np.stack(predictions["candidates"].to_list())
    places: np.ndarray = (candidates == predictions["target"].to_numpy()[:, None]).argmax(axis=1)
    return places


def row_hits(predictions: pd.DataFrame, way: str, length_normalised: bool = False) -> np.ndarray:
    """Chance of a hit at rank 1 of each row, [n]; not-a-number for rows that were not asked."""
    if way == "likelihood":
        scores = ranking_scores(predictions, length_normalised)
        return hit_at(1, *target_ranks(scores, target_places(predictions)))
    text, item = _COLUMNS[way]
    hits = (predictions[item] == predictions["target"]).fillna(False).to_numpy(dtype=float)
    asked = predictions[text].notna() | predictions["error"].notna()
    return np.where(asked.to_numpy(), hits, np.nan)


def recommended(predictions: pd.DataFrame, way: str, length_normalised: bool = False) -> np.ndarray:
    """The item recommended in each row that has one."""
    if way == "likelihood":
        candidates = np.stack(predictions["candidates"].to_list())
        first = ranking_scores(predictions, length_normalised).argmax(axis=1)
        return np.asarray(candidates[np.arange(len(first)), first])
    return np.asarray(predictions[_COLUMNS[way][1]].dropna().astype("int64"))


_COLUMNS = {
    "generate": ("answer", "answer_item"),
    "constrained": ("constrained", "constrained_item"),
}


def _answered(
    predictions: pd.DataFrame, way: str, popularity: np.ndarray, num_bootstrap: int, seed: int
) -> dict[str, Any]:
    per_user = _answers(predictions, _COLUMNS[way][1], popularity)
    if way == "generate" and "exact_item" in predictions:
        exact = _answers(predictions, "exact_item", popularity)
        for name in ("HitRatio@1", "ValidRatio", "HitRatio@1/valid"):
            per_user[f"{name}/exact"] = exact[name]
    metrics = _summary(per_user, num_bootstrap, seed)
    _add_catalogue(metrics, recommended(predictions, way), popularity)
    hits = row_hits(predictions, way)
    metrics["breakdowns"] = _breakdowns(predictions, hits, popularity, num_bootstrap, seed)
    return metrics


def _answers(predictions: pd.DataFrame, item: str, popularity: np.ndarray) -> _PerUser:
    picked = predictions[item]
    valid = picked.notna().to_numpy()
    items = picked.fillna(0).astype("int64").to_numpy()
    hits = (valid & (items == predictions["target"].to_numpy())).astype(np.float64)
    counted = valid.astype(np.float64)
    popular = popularity[items] * counted
    bias = popularity_bias(items, list(predictions["history"]), popularity)
    return {
        "HitRatio@1": (hits, None),
        "ValidRatio": (counted, None),
        "PopularityBias": (np.where(valid, bias, 0.0), counted),
        "HitRatio@1/valid": (hits, counted),
        "AveragePopularity": (popular.astype(np.float64), counted),
        "TailPercentage": (tail_items(popularity)[items] * counted, counted),
    }


def _ranked(
    predictions: pd.DataFrame,
    scores: np.ndarray,
    popularity: np.ndarray,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    candidates = np.stack(predictions["candidates"].to_list())
    above, ties = target_ranks(scores, target_places(predictions))
    top = candidates[np.arange(len(scores)), scores.argmax(axis=1)]
    per_user: _PerUser = {
        "HitRatio@1": (hit_at(1, above, ties), None),
        "HitRatio@5": (hit_at(5, above, ties), None),
        "HitRatio@10": (hit_at(10, above, ties), None),
        "NDCG@5": (ndcg_at(5, above, ties), None),
        "NDCG@10": (ndcg_at(10, above, ties), None),
        "MRR": (reciprocal_rank(above, ties), None),
        "PopularityBias": (popularity_bias(top, list(predictions["history"]), popularity), None),
        "AveragePopularity": (popularity[top].astype(np.float64), None),
        "TailPercentage": (tail_items(popularity)[top].astype(np.float64), None),
    }
    metrics = _summary(per_user, num_bootstrap, seed)
    _add_catalogue(metrics, top, popularity)
    hits = hit_at(1, above, ties)
    metrics["breakdowns"] = _breakdowns(predictions, hits, popularity, num_bootstrap, seed)
    return metrics


def _add_catalogue(metrics: dict[str, Any], items: np.ndarray, popularity: np.ndarray) -> None:
    counts = np.bincount(items, minlength=len(popularity))
    for name, statistic in (("Coverage", coverage), ("Gini", gini_index)):
        value = statistic(counts)
        metrics[name] = None if math.isnan(value) else value
        interval = jackknife_interval(statistic, counts)
        metrics["intervals"][name] = None if interval is None else list(interval)


def _breakdowns(
    predictions: pd.DataFrame,
    hits: np.ndarray,
    popularity: np.ndarray,
    num_bootstrap: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """HitRatio@1 by the target's popularity and by the history's length."""
    quintile = popularity_quintiles(popularity)[predictions["target"].to_numpy()]
    length = predictions["history"].map(len).to_numpy()
    by_popularity = [(name, quintile == place) for place, name in enumerate(QUINTILES)]
    by_length = [
        (
            f"{low} to {high}" if high else f"{low} and more",
            (length >= low) & (length <= (high or np.inf)),
        )
        for low, high in _LENGTHS
    ]
    groups = {"popularity": by_popularity, "history length": by_length}
    return {
        what: [
            _group(name, hits[inside], num_bootstrap, seed)
            for name, inside in parts
            if inside.any()
        ]
        for what, parts in groups.items()
    }


def _group(name: str, hits: np.ndarray, num_bootstrap: int, seed: int) -> dict[str, Any]:
    low, high = bootstrap_interval(hits, num_bootstrap, seed)
    ratio = float(hits.mean())
    return {"group": name, "n": len(hits), "HitRatio@1": ratio, "interval": [low, high]}


def _orders(predictions: pd.DataFrame, length_normalised: bool) -> dict[str, Any]:
    """HitRatio@1 under other orders of the same candidates: how much their place decides."""
    orders = np.stack([np.stack(list(row)) for row in predictions["order_logps"]])
    if length_normalised:
        orders = orders / np.stack(predictions["lengths"].to_list())[:, None]
    targets = target_places(predictions)
    ratios = [
        float(hit_at(1, *target_ranks(orders[:, k], targets)).mean())
        for k in range(orders.shape[1])
    ]
    first = np.concatenate(
        [ranking_scores(predictions, length_normalised)[:, None], orders], axis=1
    ).argmax(axis=2)
    return {
        "HitRatio@1": ratios,
        "spread": float(np.std(ratios, ddof=1)) if len(ratios) > 1 else None,
        "same first": float((first == first[:, :1]).all(axis=1).mean()),
    }


def _summary(per_user: _PerUser, num_bootstrap: int, seed: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for name, (values, weights) in per_user.items():
        bottom = len(values) if weights is None else weights.sum()
        metrics[name] = float(values.sum() / bottom) if bottom else None
        low, high = bootstrap_interval(values, num_bootstrap, seed, weights)
        intervals[name] = None if math.isnan(low) or not bottom else [low, high]
    metrics["n"] = len(next(iter(per_user.values()))[0])
    metrics["intervals"] = intervals
    return metrics

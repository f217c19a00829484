"""`metrics.json`: metrics of predictions, with intervals and breakdowns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.breakdowns import breakdowns
from raypo.evaluation.calibration import calibrate
from raypo.evaluation.catalogue_metrics import coverage, gini_index, jackknife_interval
from raypo.evaluation.intervals import Resampling, bootstrap_interval
from raypo.evaluation.metrics import hit_at
from raypo.evaluation.ranking import (
    TEXT_COLUMNS,
    Ranking,
    rank_candidates,
    rank_permutations,
    recommended,
    row_hits,
)
from raypo.evaluation.user_metrics import UserMetric, ranking_metrics, text_metrics


@dataclass(frozen=True)
class MetricOptions:
    """How predictions become metrics.

    Attributes:
        resampling: of the bootstrap intervals.
        length_normalised: rank by log-prob per token.
        calibrated: scores are log-probs of a language model, so that their calibration is measured.
    """

    resampling: Resampling
    length_normalised: bool = False
    calibrated: bool = False


def summarise_models(
    predictions: Mapping[str, pd.DataFrame], popularity: np.ndarray, options: MetricOptions
) -> dict[str, dict[str, Any]]:
    """`summarise` of every model, by name."""
    return {name: summarise(frame, popularity, options) for name, frame in predictions.items()}


def summarise(
    predictions: pd.DataFrame, popularity: np.ndarray, options: MetricOptions
) -> dict[str, Any]:
    """Metrics of each mode that predictions have answers of, as `metrics.json` holds them.

    Args:
        predictions: columns of `raypo.evaluation.predictions`.
        popularity: occurrences of each item in the training sequences, [items].
        options: intervals, scores and calibration.

    Returns:
        `generate`, `constrained` and `likelihood`, each with its metrics, `n`, 95% `intervals` and
        `breakdowns`; a metric that has no value (a ratio over no valid rows) is None.
    """
    summary: dict[str, Any] = {}
    for mode, columns in TEXT_COLUMNS.items():
        requested = predictions[columns.requested(predictions)]
        if len(requested):
            summary[mode] = _summarise_text(requested, mode, popularity, options.resampling)
    if predictions["logps"].notna().all():
        summary["likelihood"] = _summarise_ranking(predictions, popularity, options)
    return summary


def _summarise_text(
    predictions: pd.DataFrame,
    mode: str,
    popularity: np.ndarray,
    resampling: Resampling,
) -> dict[str, Any]:
    per_user = text_metrics(predictions, TEXT_COLUMNS[mode].item, popularity)
    if mode == "generate":
        exact = text_metrics(predictions, "exact_item", popularity)
        for name in ("HitRatio@1", "ValidRatio", "HitRatio@1/valid"):
            per_user[f"{name}/exact"] = exact[name]
    metrics = _aggregate(per_user, predictions["user_id"].to_numpy(), resampling)
    _add_catalogue(metrics, recommended(predictions, mode, False), popularity)
    hits = row_hits(predictions, mode, False)
    metrics["breakdowns"] = breakdowns(predictions, hits, popularity, resampling)
    return metrics


def _summarise_ranking(
    predictions: pd.DataFrame, popularity: np.ndarray, options: MetricOptions
) -> dict[str, Any]:
    ranking = rank_candidates(predictions, options.length_normalised)
    per_user = ranking_metrics(list(predictions["history"]), ranking, popularity)
    metrics = _aggregate(per_user, predictions["user_id"].to_numpy(), options.resampling)
    _add_catalogue(metrics, ranking.first_items, popularity)
    hits = per_user["HitRatio@1"].values
    metrics["breakdowns"] = breakdowns(predictions, hits, popularity, options.resampling)
    if options.calibrated:
        calibration = calibrate(ranking.scores, ranking.targets)
        metrics["CalibrationError"] = calibration.error
        metrics["calibration"] = [list(one) for one in calibration.bins]
    if predictions["permutation_logps"].notna().all():
        permuted = rank_permutations(predictions, options.length_normalised)
        metrics["permutations"] = _summarise_permutations(ranking, permuted)
    return metrics


def _summarise_permutations(ranking: Ranking, permuted: list[Ranking]) -> dict[str, Any]:
    """HitRatio@1 of each permutation, and how often all of them agree on the first candidate."""
    ratios = [float(hit_at(1, *one.target_ranks).mean()) for one in permuted]
    first = np.stack([one.first_items for one in (ranking, *permuted)], axis=1)
    return {
        "HitRatio@1": ratios,
        "spread": float(np.std(ratios, ddof=1)) if len(ratios) > 1 else None,
        "same first": float((first == first[:, :1]).all(axis=1).mean()),
    }


def _aggregate(
    per_user: Mapping[str, UserMetric], users: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for name, metric in per_user.items():
        values, weights = metric.values, metric.weights
        denominator = len(values) if weights is None else weights.sum()
        metrics[name] = float(values.sum() / denominator) if denominator else None
        low, high = bootstrap_interval(
            values, resampling.num_bootstrap, resampling.seed, weights, users
        )
        intervals[name] = None if math.isnan(low) or not denominator else [low, high]
    metrics["n"] = len(next(iter(per_user.values())).values)
    metrics["intervals"] = intervals
    return metrics


def _add_catalogue(metrics: dict[str, Any], items: np.ndarray, popularity: np.ndarray) -> None:
    counts = np.bincount(items, minlength=len(popularity))
    for name, statistic in (("Coverage", coverage), ("Gini", gini_index)):
        value = statistic(counts)
        metrics[name] = None if math.isnan(value) else value
        interval = jackknife_interval(statistic, counts)
        metrics["intervals"][name] = None if interval is None else list(interval)

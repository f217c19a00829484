"""Metrics of a mode as one value per user, from which means and intervals follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from raypo.evaluation.catalogue_metrics import tail_items
from raypo.evaluation.metrics import hit_at, ndcg_at, popularity_bias, reciprocal_rank
from raypo.evaluation.position_bias import position_bias
from raypo.evaluation.ranking import Ranking


@dataclass(frozen=True)
class UserMetric:
    """A metric whose value is sum(values) / sum(weights).

    Attributes:
        values: one per user, [n].
        weights: denominators, [n]; None is 1 each.
    """

    values: np.ndarray
    weights: np.ndarray | None = None


def text_metrics(
    predictions: pd.DataFrame, item_column: str, popularity: np.ndarray
) -> dict[str, UserMetric]:
    """Metrics of generated answers, by name.

    Args:
        predictions: columns target, history, candidates.
        item_column: column of the candidate that an answer names; null where it is invalid.
        popularity: occurrences of each item in the training sequences, [items].
    """
    matched = predictions[item_column]
    valid = matched.notna().to_numpy()
    items = matched.fillna(0).astype("int64").to_numpy()
    hits = (valid & (items == predictions["target"].to_numpy())).astype(np.float64)
    weights = valid.astype(np.float64)
    bias = popularity_bias(items, list(predictions["history"]), popularity)
    return {
        "HitRatio@1": UserMetric(hits),
        "ValidRatio": UserMetric(weights),
        "PopularityBias": UserMetric(np.where(valid, bias, 0.0), weights),
        "PositionBias": UserMetric(_position_bias(predictions, items, valid), weights),
        "HitRatio@1/valid": UserMetric(hits, weights),
        "AveragePopularity": UserMetric((popularity[items] * weights).astype(np.float64), weights),
        "TailPercentage": UserMetric(tail_items(popularity)[items] * weights, weights),
    }


def _position_bias(predictions: pd.DataFrame, items: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """As `position_bias`, [n], of the answered candidate; 0 where there is none."""
    bias = np.zeros(len(items))
    if valid.any():
        listed = np.stack(predictions["candidates"].to_list())[valid]
        is_target = listed == predictions["target"].to_numpy()[valid, None]
        bias[valid] = position_bias(listed == items[valid, None], is_target.argmax(axis=1))
    return bias


def ranking_metrics(
    histories: list[np.ndarray], ranking: Ranking, popularity: np.ndarray
) -> dict[str, UserMetric]:
    """Metrics of ranked candidates, by name.

    Args:
        histories: item ids, oldest first, of n users.
        ranking: scores of their candidates.
        popularity: occurrences of each item in the training sequences, [items].
    """
    above, ties = ranking.target_ranks
    first = ranking.first_items
    values = {
        "HitRatio@1": hit_at(1, above, ties),
        "HitRatio@5": hit_at(5, above, ties),
        "HitRatio@10": hit_at(10, above, ties),
        "NDCG@5": ndcg_at(5, above, ties),
        "NDCG@10": ndcg_at(10, above, ties),
        "MRR": reciprocal_rank(above, ties),
        "PopularityBias": popularity_bias(first, histories, popularity),
        "PositionBias": ranking.position_bias,
        "AveragePopularity": popularity[first].astype(np.float64),
        "TailPercentage": tail_items(popularity)[first].astype(np.float64),
    }
    return {name: UserMetric(each) for name, each in values.items()}

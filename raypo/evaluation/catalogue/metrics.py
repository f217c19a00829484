"""Metrics of rankings of the whole catalogue.

With one target a row, Recall@k is HitRatio@k. A target that was not retrieved is a miss. Metrics of
lists are of the first `LIST` items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.catalogue.item_statistics import ItemStatistics
from raypo.evaluation.catalogue_metrics import (
    coverage,
    gini_index,
    popularity_quintiles,
    tail_items,
)
from raypo.evaluation.intervals import Resampling, bootstrap_interval
from raypo.evaluation.metrics import hit_at, ndcg_at, popularity_bias, reciprocal_rank

CUTOFFS = (1, 5, 10, 20)
LIST = 10
_BROKEN_DOWN = ("HitRatio@10", "NDCG@10")
_COLD = 5  # interactions of a user or occurrences of an item, at most


def target_positions(ranked: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [n] of items above the target (infinite where it was missed) and tied with it."""
    above = ranked["above"].astype("Float64").fillna(math.inf).to_numpy(dtype=float)
    return above, ranked["ties"].fillna(0).to_numpy(dtype=np.int64)


def row_metrics(ranked: pd.DataFrame, items: ItemStatistics) -> dict[str, np.ndarray]:
    """Metrics as one value per row, [n] each, by name.

    Args:
        ranked: columns of `raypo.evaluation.catalogue.ranked`, with `LIST` items at least.
        items: of the training rows.
    """
    above, ties = target_positions(ranked)
    values: dict[str, np.ndarray] = {}
    for k in CUTOFFS:
        values[f"HitRatio@{k}"] = hit_at(k, above, ties)
    for k in CUTOFFS[1:]:
        values[f"NDCG@{k}"] = ndcg_at(k, above, ties)
    values["MRR"] = reciprocal_rank(above, ties)
    values["Retrieved"] = np.isfinite(above).astype(np.float64)
    return values | _list_metrics(ranked, items)


def _list_metrics(ranked: pd.DataFrame, items: ItemStatistics) -> dict[str, np.ndarray]:
    length = min(LIST, *(len(one) for one in ranked["items"]))
    lists = np.stack([np.asarray(one)[:length] for one in ranked["items"]])
    bias = popularity_bias(lists, list(ranked["history"]), items.popularity)
    count = len(items.popularity)
    at_rank = (count - np.arange(length)) / count
    surprise = np.maximum(at_rank - items.chance[lists], 0.0)
    relevant = lists == ranked["target"].to_numpy()[:, None]
    values = {
        f"PopularityBias@{length}": bias,
        f"TailPercentage@{length}": tail_items(items.popularity)[lists].mean(axis=1),
        f"Novelty@{length}": items.novelty[lists].mean(axis=1),
        f"Serendipity@{length}": (surprise * relevant).sum(axis=1) / length,
    }
    if length > 1:
        values[f"IntraListDiversity@{length}"] = items.distances(lists)
    return values


def summarise_ranked(
    ranked: pd.DataFrame, items: ItemStatistics, resampling: Resampling
) -> dict[str, Any]:
    """The section `catalogue` of `metrics.json`.

    Returns:
        Metrics by name, `n`, 95% bootstrap `intervals` over users, and `breakdowns` of HitRatio@10
        and NDCG@10 by the target's popularity, cold targets and cold users.
    """
    values = row_metrics(ranked, items)
    users = ranked["user_id"].to_numpy()
    summary: dict[str, Any] = {name: float(each.mean()) for name, each in values.items()}
    summary["n"] = len(ranked)
    summary["num_ranked"] = float(ranked["num_ranked"].mean())
    summary["intervals"] = {
        name: list(bootstrap_interval(each, resampling.num_bootstrap, resampling.seed, users=users))
        for name, each in values.items()
    }
    recommended = np.concatenate([np.asarray(one)[:LIST] for one in ranked["items"]])
    counts = np.bincount(recommended, minlength=len(items.popularity))
    summary[f"Coverage@{LIST}"] = coverage(counts)
    summary[f"Gini@{LIST}"] = gini_index(counts)
    summary["breakdowns"] = _breakdowns(ranked, values, items)
    return summary


def _breakdowns(
    ranked: pd.DataFrame, values: Mapping[str, np.ndarray], items: ItemStatistics
) -> list[dict[str, Any]]:
    target = ranked["target"].to_numpy()
    lengths = np.array([len(history) for history in ranked["history"]])
    quintile = popularity_quintiles(items.popularity)[target]
    seen = items.popularity[target]
    groups = {
        "targets never in training": seen == 0,
        f"targets at most {_COLD} times in training": seen <= _COLD,
        f"users with at most {_COLD} history items": lengths <= _COLD,
    } | {f"targets of popularity quintile {q + 1} of 5": quintile == q for q in range(5)}
    return [
        {
            "rows": name,
            "n": int(chosen.sum()),
            **{
                metric: float(values[metric][chosen].mean())
                for metric in ("HitRatio@10", "NDCG@10")
            },
        }
        for name, chosen in groups.items()
        if chosen.any()
    ]

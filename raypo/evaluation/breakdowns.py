"""HitRatio@1 of groups of rows: by popularity of the target and by length of the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.intervals import Resampling, bootstrap_interval

QUINTILES = ("least popular", "2nd", "3rd", "4th", "most popular")
_HISTORY_LENGTHS = ((1, 3), (4, 6), (7, 9), (10, None))


def breakdowns(
    predictions: pd.DataFrame, hits: np.ndarray, popularity: np.ndarray, resampling: Resampling
) -> dict[str, list[dict[str, Any]]]:
    """HitRatio@1 with its interval by group, for every breakdown.

    Args:
        predictions: columns user_id, target, history.
        hits: chance of a hit at rank 1, [n].
        popularity: occurrences of each item in the training sequences, [items].
        resampling: of the intervals.

    Returns:
        By breakdown, its groups that have rows: group, n, HitRatio@1, interval.
    """
    users = predictions["user_id"].to_numpy()
    quintile = popularity_quintiles(popularity)[predictions["target"].to_numpy()]
    length = predictions["history"].map(len).to_numpy()
    by_popularity = [(name, quintile == number) for number, name in enumerate(QUINTILES)]
    by_length = [
        (
            f"{low} to {high}" if high else f"{low} and more",
            (length >= low) & (length <= (high or np.inf)),
        )
        for low, high in _HISTORY_LENGTHS
    ]
    return {
        breakdown: [
            _group(name, hits[members], users[members], resampling)
            for name, members in groups
            if members.any()
        ]
        for breakdown, groups in (("popularity", by_popularity), ("history length", by_length))
    }


def _group(
    name: str, hits: np.ndarray, users: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    low, high = bootstrap_interval(hits, resampling.num_bootstrap, resampling.seed, users=users)
    ratio = float(hits.mean())
    return {"group": name, "n": len(hits), "HitRatio@1": ratio, "interval": [low, high]}

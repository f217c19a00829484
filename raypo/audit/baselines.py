"""Heuristics that rank candidates, with or without knowledge of what users chose.

Each returns scores [rows, candidates]; the highest is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from raypo.audit import item_orders
from raypo.data.dataset import Dataset
from raypo.recommenders.heuristics import Heuristic, candidates_of, heuristic_scores

_EXAMPLES = 3
# Compared with the non-personalised heuristics; the keys are the names that reports show.
_BASELINES: Mapping[str, Heuristic] = {
    "popularity": "popularity",
    "item-kNN": "item-knn",
    "Markov chain": "markov-chain",
}


@dataclass(frozen=True)
class HeuristicScore:
    """HitRatio@1 of a heuristic on held-out rows.

    Attributes:
        name: in words.
        baseline: True for a baseline, computed from what users chose; False for a non-personalised
            heuristic, which does not use it.
        hit_ratio: HitRatio@1; ties count by their expectation. low, high: its 95% Wilson interval.
        hits: numbers of the first rows that it answers correctly.
    """

    name: str
    baseline: bool
    hit_ratio: float
    low: float
    high: float
    hits: tuple[int, ...] = ()


def score_heuristics(
    dataset: Dataset, rows: pd.DataFrame, known: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> list[HeuristicScore]:
    """Score all heuristics on `rows`.

    Args:
        dataset: its training rows and titles make the heuristics; without training rows there are
            no baselines.
        rows: held-out rows with candidates.
        known: other held-out rows. Options (which position in the candidate list, short or long
            titles) are selected on these, so that no heuristic is fitted to the rows it answers;
            without any there are no heuristics of that kind.
        ranks: orders of the catalogue, from `known_orders`.
    """
    non_personalised = _non_personalised(dataset, rows, known, ranks)
    baselines = {
        name: heuristic_scores(heuristic, dataset, rows)
        for name, heuristic in _BASELINES.items()
        if not dataset.train.empty
    }
    return [
        *(_score(name, False, scores, rows) for name, scores in non_personalised.items()),
        *(_score(name, True, scores, rows) for name, scores in baselines.items()),
    ]


def _score(name: str, baseline: bool, scores: np.ndarray, rows: pd.DataFrame) -> HeuristicScore:
    hits = _hits(scores, rows)
    interval = binomtest(round(hits.sum()), len(hits)).proportion_ci(method="wilson")
    examples = tuple(np.flatnonzero(hits == 1)[:_EXAMPLES].tolist())
    low, high = float(interval.low), float(interval.high)
    return HeuristicScore(name, baseline, float(hits.mean()), low, high, examples)


def _hits(scores: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Probability that each row is a hit under random tie-breaking, [rows]."""
    best = scores == scores.max(axis=1, keepdims=True)
    target = candidates_of(rows) == rows["target"].to_numpy()[:, None]
    hits: np.ndarray = (best & target).any(axis=1) / best.sum(axis=1)
    return hits


def _non_personalised(
    dataset: Dataset, rows: pd.DataFrame, known: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    candidates = candidates_of(rows)
    length = np.array([len(title) for title in dataset.titles])
    scores = {"random": np.zeros(candidates.shape)}
    if not known.empty:
        scores |= _position(candidates, known)
        scores |= _longest_or_shortest(candidates, length, known)
    for name, rank in ranks.items():
        scores[f"next {name} after the last history item"] = _next(candidates, rank, rows)
    return scores


def known_orders(dataset: Dataset) -> dict[str, np.ndarray]:
    """Orders of the catalogue as ranks [items], by name."""
    found = {
        "in the alphabet": item_orders.by_name(dataset.titles),
        "by id": item_orders.by_source_id(dataset.items["source_id"]),
    }
    if not dataset.train.empty:
        found["in a hidden order"] = item_orders.hidden(dataset.train, dataset.num_items)
    return {name: rank for name, rank in found.items() if rank is not None}


def _position(candidates: np.ndarray, known: pd.DataFrame) -> dict[str, np.ndarray]:
    positions = (candidates_of(known) == known["target"].to_numpy()[:, None]).argmax(axis=1)
    most_frequent = int(np.bincount(positions, minlength=candidates.shape[1]).argmax())
    most_frequent = min(most_frequent, candidates.shape[1] - 1)
    scores = np.zeros(candidates.shape)
    scores[:, most_frequent] = 1
    return {f"position {most_frequent + 1} of the candidate list": scores}


def _longest_or_shortest(
    candidates: np.ndarray, length: np.ndarray, known: pd.DataFrame
) -> dict[str, np.ndarray]:
    long, short = (_hits(sign * length[candidates_of(known)], known).mean() for sign in (1, -1))
    name, sign = ("longest title", 1) if long > short else ("shortest title", -1)
    return {name: sign * length[candidates]}


def _next(candidates: np.ndarray, rank: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Prefer the nearest above the last history item in an order; if all are below, the lowest."""
    last = rank[[history[-1] for history in rows["history"]]][:, None]
    ahead = rank[candidates] - last
    return -np.where(ahead > 0, ahead, ahead - ahead.min() + len(rank))

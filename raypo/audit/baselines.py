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
    dataset: Dataset, rows: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> list[HeuristicScore]:
    """Score all heuristics on `rows`; those that learn from training rows, where there are any.

    Heuristics with an option (which position of the candidate list, long or short titles) select it
    for each half of the rows on the other half: no heuristic is fitted to the rows that it answers,
    and what is wrong with these rows alone is found too.

    Args:
        dataset: its training rows and titles make the heuristics.
        rows: held-out rows with candidates.
        ranks: orders of the catalogue, from `known_orders`.
    """
    non_personalised = _non_personalised(dataset, rows, ranks)
    baselines = {
        name: heuristic_scores(heuristic, dataset, rows)
        for name, heuristic in _BASELINES.items()
        if len(dataset.train)
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
    dataset: Dataset, rows: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    candidates = candidates_of(rows)
    length = np.array([len(title) for title in dataset.titles])
    scores = {
        "random": np.zeros(candidates.shape),
        **_position(candidates, rows),
        **_longest_or_shortest(candidates, length, rows),
    }
    for name, rank in ranks.items():
        scores[f"next {name} after the last history item"] = _next(candidates, rank, rows)
    return scores


def known_orders(dataset: Dataset) -> dict[str, np.ndarray]:
    """Orders of the catalogue as ranks [items], by name."""
    found: dict[str, np.ndarray | None] = {
        "in the alphabet": item_orders.by_name(dataset.titles),
        "by id": item_orders.by_source_id(dataset.items["source_id"]),
    }
    if len(dataset.train):
        found["in a hidden order"] = item_orders.hidden(dataset.train, dataset.num_items)
    return {name: rank for name, rank in found.items() if rank is not None}


def target_positions(rows: pd.DataFrame) -> np.ndarray:
    """Position of each row's target among its candidates, from 0, [rows]."""
    positions: np.ndarray = (candidates_of(rows) == rows["target"].to_numpy()[:, None]).argmax(1)
    return positions


def _position(candidates: np.ndarray, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The most frequent position of the target in the other half of the rows."""
    positions = target_positions(rows)
    scores = np.zeros(candidates.shape)
    chosen = set()
    for half, other in _halves(len(rows)):
        counts = np.bincount(positions[other], minlength=candidates.shape[1])
        chosen.add(int(counts.argmax()))
        scores[half, counts.argmax()] = 1
    place = " or ".join(str(position + 1) for position in sorted(chosen))
    return {f"position {place} of the candidate list": scores}


def _longest_or_shortest(
    candidates: np.ndarray, length: np.ndarray, rows: pd.DataFrame
) -> dict[str, np.ndarray]:
    """The longest title, or the shortest, whichever is right more often in the other half."""
    signs = np.ones(len(rows))
    own_lengths = length[candidates]
    for half, other in _halves(len(rows)):
        others = rows.iloc[other]
        long, short = (_hits(sign * own_lengths[other], others).mean() for sign in (1, -1))
        signs[half] = 1 if long > short else -1
    names = [name for sign, name in ((1, "longest"), (-1, "shortest")) if (signs == sign).any()]
    return {f"{' or '.join(names)} title": signs[:, None] * own_lengths}


def _halves(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each half of the rows, with the rows that its options are selected on."""
    even, odd = np.arange(0, rows, 2), np.arange(1, rows, 2)
    return [(even, odd), (odd, even)] if rows > 1 else [(even, even)]


def _next(candidates: np.ndarray, rank: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Prefer the nearest above the last history item in an order; if all are below, the lowest."""
    last = rank[[history[-1] for history in rows["history"]]][:, None]
    ahead = rank[candidates] - last
    return -np.where(ahead > 0, ahead, ahead - ahead.min() + len(rank))

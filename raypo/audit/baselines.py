"""Rules that rank candidates: some blind to taste, some simple ones that see it.

Each gives scores [rows, candidates]; the highest is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from scipy.stats import binomtest

from raypo.audit import item_orders
from raypo.data.dataset import Dataset

_ROWS_AT_A_TIME = 128
_EXAMPLES = 3


@dataclass(frozen=True)
class RuleScore:
    """How a rule does on held-out rows.

    Attributes:
        name: in words. blind: it knows nothing of anybody's taste.
        hit_ratio: HitRatio@1; ties count by their share. low, high: its 95% Wilson interval.
        hits: the first rows that it answers rightly, by number.
    """

    name: str
    blind: bool
    hit_ratio: float
    low: float
    high: float
    hits: tuple[int, ...] = ()


def rule_scores(
    dataset: Dataset, rows: pd.DataFrame, known: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> list[RuleScore]:
    """All rules on `rows`.

    Args:
        dataset: training rows and titles, which rules are made from.
        rows: held-out rows with candidates.
        known: other held-out rows, from which rules with a choice take it (which position in the
            candidate list, short or long titles), so that no rule is fitted to what it answers.
        ranks: item_orders of the catalogue, of `known_orders`.
    """
    blind = _blind(dataset, rows, known, ranks)
    scored = [
        *((name, True, scores) for name, scores in blind.items()),
        *((name, False, scores) for name, scores in simple_scores(dataset, rows).items()),
    ]
    return [_score(name, blind, scores, rows) for name, blind, scores in scored]


def candidates_of(rows: pd.DataFrame) -> np.ndarray:
    """Candidates [rows, k]."""
    return np.stack(rows["candidates"].to_list())


def _score(name: str, blind: bool, scores: np.ndarray, rows: pd.DataFrame) -> RuleScore:
    hits = _hits(scores, rows)
    interval = binomtest(round(hits.sum()), len(hits)).proportion_ci(method="wilson")
    examples = tuple(np.flatnonzero(hits == 1)[:_EXAMPLES].tolist())
    low, high = float(interval.low), float(interval.high)
    return RuleScore(name, blind, float(hits.mean()), low, high, examples)


def _hits(scores: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Chance of each row to be a hit if ties are broken by lot, [rows]."""
    best = scores == scores.max(axis=1, keepdims=True)
    target = candidates_of(rows) == rows["target"].to_numpy()[:, None]
    hits: np.ndarray = (best & target).any(axis=1) / best.sum(axis=1)
    return hits


def _blind(
    dataset: Dataset, rows: pd.DataFrame, known: pd.DataFrame, ranks: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    candidates = candidates_of(rows)
    length = np.array([len(title) for title in dataset.titles])
    rules = {
        "random": np.zeros(candidates.shape),
        **_position(candidates, known),
        **_longest_or_shortest(candidates, length, known),
    }
    for name, rank in ranks.items():
        rules[f"next {name} after the last history item"] = _next(candidates, rank, rows)
    return rules


def known_orders(dataset: Dataset) -> dict[str, np.ndarray]:
    """Orders of the catalogue as ranks [items], by name."""
    found = {
        "in the alphabet": item_orders.by_name(dataset.titles),
        "by id": item_orders.by_source_id(dataset.items["source_id"]),
        "in a hidden order": item_orders.hidden(dataset.train, dataset.num_items),
    }
    return {name: rank for name, rank in found.items() if rank is not None}


def _position(candidates: np.ndarray, known: pd.DataFrame) -> dict[str, np.ndarray]:
    places = (candidates_of(known) == known["target"].to_numpy()[:, None]).argmax(axis=1)
    usual = int(np.bincount(places, minlength=candidates.shape[1]).argmax())
    usual = min(usual, candidates.shape[1] - 1)
    scores = np.zeros(candidates.shape)
    scores[:, usual] = 1
    return {f"place {usual + 1} of the candidate list": scores}


def _longest_or_shortest(
    candidates: np.ndarray, length: np.ndarray, known: pd.DataFrame
) -> dict[str, np.ndarray]:
    long, short = (_hits(sign * length[candidates_of(known)], known).mean() for sign in (1, -1))
    name, sign = ("longest title", 1) if long > short else ("shortest title", -1)
    return {name: sign * length[candidates]}


def _next(candidates: np.ndarray, rank: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """The nearest above the last history item in an order; where all are below, the lowest."""
    last = rank[[history[-1] for history in rows["history"]]][:, None]
    ahead = rank[candidates] - last
    return -np.where(ahead > 0, ahead, ahead - ahead.min() + len(rank))


def simple_scores(dataset: Dataset, rows: pd.DataFrame) -> Mapping[str, np.ndarray]:
    """Popularity, item-kNN and Markov chain from training rows; each [rows, candidates]."""
    candidates = candidates_of(rows)
    popularity = dataset.items["popularity"].to_numpy().astype(np.float64)
    # Ties of the sparse rules go to the more popular item.
    tie = popularity[candidates] / (1 + popularity.max()) * 1e-6
    seen, following = _seen(dataset), _following(dataset)
    norms = np.sqrt(np.asarray(seen.multiply(seen).sum(axis=0)).ravel())
    unit = (seen @ sparse.diags(1 / np.maximum(norms, 1))).tocsc()
    histories = _histories(rows, dataset.num_items)
    last = np.array([history[-1] for history in rows["history"]])
    return {
        "popularity": popularity[candidates],
        "item-kNN": _neighbours(histories, unit, candidates) + tie,
        "Markov chain": _pick(following, last, candidates) + tie,
    }


def _neighbours(
    histories: sparse.csr_matrix, unit: sparse.csc_matrix, candidates: np.ndarray
) -> np.ndarray:
    """Cosine of each candidate with each history item, summed; some rows at a time."""
    scores = np.empty(candidates.shape)
    for start in range(0, len(candidates), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        similar = (histories[part] @ unit.T @ unit).tocsr()
        scores[part] = _pick(similar, np.arange(similar.shape[0]), candidates[part])
    return scores


def _seen(dataset: Dataset) -> sparse.csr_matrix:
    """Which user has which item in training, [users, items]."""
    train = dataset.train
    users, _ = pd.factorize(train["user_id"])
    lengths = train["history"].map(len).to_numpy()
    row = np.concatenate([np.repeat(users, lengths), users])
    column = np.concatenate([np.concatenate(train["history"].to_list()), train["target"]])
    shape = (int(users.max()) + 1, dataset.num_items)
    matrix = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)
    matrix.data[:] = 1
    return matrix


def _following(dataset: Dataset) -> sparse.csr_matrix:
    """How often the target follows the last history item in training, [items, items]."""
    last = [history[-1] for history in dataset.train["history"]]
    ones = np.ones(len(last))
    shape = (dataset.num_items, dataset.num_items)
    return sparse.csr_matrix((ones, (last, dataset.train["target"])), shape)


def _histories(rows: pd.DataFrame, num_items: int) -> sparse.csr_matrix:
    lengths = rows["history"].map(len).to_numpy()
    row = np.repeat(np.arange(len(rows)), lengths)
    column = np.concatenate(rows["history"].to_list())
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), (len(rows), num_items))


def _pick(matrix: sparse.csr_matrix, index: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """matrix[index[i], candidates[i, j]], [rows, k]."""
    picked = matrix[np.repeat(index, candidates.shape[1]), candidates.ravel()]
    return np.asarray(picked).reshape(candidates.shape)

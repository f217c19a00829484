"""Heuristic baselines: popularity, item-kNN and a Markov chain, made from training rows.

Each gives scores [rows, candidates]; the highest is the answer. Every report
compares models with them, and so does the audit of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sparse

from raypo.data.dataset import Dataset
from raypo.data.training_rows import TrainingRows

Heuristic = Literal["random", "popularity", "item-knn", "markov-chain"]
_ROWS_AT_A_TIME = 128


def heuristic_scores(
    name: Heuristic, dataset: Dataset, rows: pd.DataFrame, seed: int = 0
) -> np.ndarray:
    """Scores of each row's candidates by a heuristic baseline, [rows, candidates].

    Args:
        name: `random`; `popularity`, occurrences in the training sequences; `item-knn`, the summed
            cosine of a candidate with the history's items, over users; `markov-chain`, how often a
            candidate follows the last history item. Ties of the last two go to the more popular
            item.
        dataset: its training rows make the baseline.
        rows: held-out rows with history and candidates.
        seed: of `random`.
    """
    if name == "random":
        return random_scores(rows, seed)
    popularity = dataset.items["popularity"].to_numpy()
    if name == "popularity":
        return popularity_scores(rows, popularity)
    fitted = fit_heuristic(name, TrainingRows.of_frame(dataset.train), dataset.num_items)
    return replace(fitted, popularity=popularity)(list(rows["history"]), candidates_of(rows))


def random_scores(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Uniform random scores [rows, candidates]."""
    shape = (len(rows), len(rows["candidates"].iat[0]))
    return np.random.default_rng(seed).random(shape)


def popularity_scores(rows: pd.DataFrame, popularity: np.ndarray) -> np.ndarray:
    """Each candidate's occurrences in the training sequences, [rows, candidates]."""
    scores: np.ndarray = popularity[candidates_of(rows)].astype(np.float64)
    return scores


def candidates_of(rows: pd.DataFrame) -> np.ndarray:
    """Candidates [rows, k]."""
    return np.stack(rows["candidates"].to_list())


@dataclass(frozen=True)
class FittedHeuristic:
    """A heuristic made from training rows.

    Attributes:
        popularity: [items] occurrences in the training sequences.
        unit: [users, items] which user has which item, columns of length 1; of `item-knn`.
        transitions: [items, items] how often the second follows the first; of `markov-chain`.
    """

    popularity: np.ndarray
    unit: sparse.csc_matrix | None = None
    transitions: sparse.csr_matrix | None = None

    def __call__(self, histories: Sequence[Sequence[int]], candidates: np.ndarray) -> np.ndarray:
        """Scores [rows, k] of candidates [rows, k] after each row's history."""
        counts = self.popularity.astype(np.float64)
        if self.unit is not None:
            scores = _item_knn(self.unit, histories, candidates)
        elif self.transitions is not None:
            last = np.array([history[-1] for history in histories])
            scores = _pick(self.transitions, last, candidates)
        else:
            return np.asarray(counts[candidates])
        tie = counts[candidates] / (1 + counts.max()) * 1e-6
        return np.asarray(scores + tie)


def fit_heuristic(
    name: Heuristic, rows: TrainingRows, num_items: int, fitted: np.ndarray | None = None
) -> FittedHeuristic:
    """Make a heuristic from training rows.

    Args:
        name: `popularity`, `item-knn` or `markov-chain`.
        rows: training rows, those of a user in the order of time.
        num_items: items in the catalogue.
        fitted: which rows to take, bool [rows]; None takes all.
    """
    chosen = np.arange(len(rows)) if fitted is None else np.flatnonzero(fitted)
    if name == "item-knn":
        interactions = _interactions(rows, chosen, num_items)
        norms = np.sqrt(np.asarray(interactions.multiply(interactions).sum(axis=0)).ravel())
        unit = (interactions @ sparse.diags(1 / np.maximum(norms, 1))).tocsc()
        return FittedHeuristic(occurrences(rows, chosen, num_items), unit=unit)
    transitions = _transitions(rows, chosen, num_items) if name == "markov-chain" else None
    return FittedHeuristic(occurrences(rows, chosen, num_items), transitions=transitions)


def occurrences(rows: TrainingRows, chosen: np.ndarray, num_items: int) -> np.ndarray:
    """Occurrences of each item in the sequences of the chosen rows, [items].

    A user's sequence is the history of the first row and the targets of all.
    """
    _, first = np.unique(rows.users[chosen], return_index=True)
    counts = np.bincount(rows.targets[chosen], minlength=num_items)
    counts += np.bincount(_history_items(rows, chosen[first])[1], minlength=num_items)
    return counts


def _history_items(rows: TrainingRows, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position in `chosen` and item of every history item of the chosen rows."""
    starts, ends = rows.offsets[chosen], rows.offsets[chosen + 1]
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(before, lengths)
    items = rows.histories[np.repeat(starts, lengths) + within]
    return np.repeat(np.arange(len(chosen)), lengths), items


def _item_knn(
    unit: sparse.csc_matrix, histories: Sequence[Sequence[int]], candidates: np.ndarray
) -> np.ndarray:
    scores = np.empty(candidates.shape)
    for start in range(0, len(candidates), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        read = _count_histories(histories[part], unit.shape[1])
        similar = (read @ unit.T @ unit).tocsr()
        scores[part] = _pick(similar, np.arange(similar.shape[0]), candidates[part])
    return scores


def _interactions(rows: TrainingRows, chosen: np.ndarray, num_items: int) -> sparse.csr_matrix:
    """Which user has which item in the chosen rows, [users, items]."""
    users = rows.users[chosen]
    position, items = _history_items(rows, chosen)
    row = np.concatenate([users[position], users])
    column = np.concatenate([items, rows.targets[chosen]])
    shape = (len(rows.user_ids), num_items)
    matrix = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)
    matrix.data[:] = 1
    return matrix


def _transitions(rows: TrainingRows, chosen: np.ndarray, num_items: int) -> sparse.csr_matrix:
    """How often the target follows the last history item, [items, items]."""
    last = rows.histories[rows.offsets[chosen + 1] - 1]
    ones = np.ones(len(last))
    return sparse.csr_matrix((ones, (last, rows.targets[chosen])), (num_items, num_items))


def _count_histories(histories: Sequence[Sequence[int]], num_items: int) -> sparse.csr_matrix:
    lengths = [len(history) for history in histories]
    row = np.repeat(np.arange(len(histories)), lengths)
    column = np.concatenate([np.asarray(history) for history in histories])
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), (len(histories), num_items))


def _pick(matrix: sparse.csr_matrix, index: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """matrix[index[i], candidates[i, j]], [rows, k]."""
    picked = matrix[np.repeat(index, candidates.shape[1]), candidates.ravel()]
    return np.asarray(picked).reshape(candidates.shape)

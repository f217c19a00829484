"""Heuristic baselines: popularity, item-kNN and a Markov chain, made from training rows.

Each gives scores [rows, candidates]; the highest is the answer. Every report
compares models with them, and so does the audit of a data set.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sparse

from raypo.data.dataset import Dataset

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
    score = _item_knn if name == "item-knn" else _markov_chain
    candidates = candidates_of(rows)
    counts = popularity.astype(np.float64)
    tie = counts[candidates] / (1 + counts.max()) * 1e-6
    scores: np.ndarray = score(dataset, rows, candidates) + tie
    return scores


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


def _item_knn(dataset: Dataset, rows: pd.DataFrame, candidates: np.ndarray) -> np.ndarray:
    interactions = _interactions(dataset)
    norms = np.sqrt(np.asarray(interactions.multiply(interactions).sum(axis=0)).ravel())
    unit = (interactions @ sparse.diags(1 / np.maximum(norms, 1))).tocsc()
    histories = _histories(rows, dataset.num_items)
    scores = np.empty(candidates.shape)
    for start in range(0, len(candidates), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        similar = (histories[part] @ unit.T @ unit).tocsr()
        scores[part] = _pick(similar, np.arange(similar.shape[0]), candidates[part])
    return scores


def _markov_chain(dataset: Dataset, rows: pd.DataFrame, candidates: np.ndarray) -> np.ndarray:
    last = np.array([history[-1] for history in rows["history"]])
    return _pick(_transitions(dataset), last, candidates)


def _interactions(dataset: Dataset) -> sparse.csr_matrix:
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


def _transitions(dataset: Dataset) -> sparse.csr_matrix:
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

"""Orders of items that sequences may follow instead of time: by id, by name, or hidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from scipy.sparse.linalg import cg

_ROUNDS = 30


def by_name(titles: Sequence[str]) -> np.ndarray:
    """Rank of each item among the titles in alphabetical order, [items]."""
    return np.argsort(np.argsort([title.casefold() for title in titles], kind="stable"))


def by_source_id(source_ids: pd.Series) -> np.ndarray | None:
    """Rank of each item by its numeric id at the source; None where ids are not numbers."""
    numbers = pd.to_numeric(source_ids, errors="coerce")
    return None if numbers.isna().any() else np.argsort(np.argsort(numbers.to_numpy()))


def hidden(train: pd.DataFrame, num_items: int) -> np.ndarray:
    """The one order of items that training sequences agree with best, as ranks [items].

    If sequences follow some order of the catalogue (ids that the files no longer hold, say), every
    sequence is a chain of it, and the chains together reveal it. A first order comes from least
    squares over 'b follows a' (SpringRank: De Bacco et al. 2018, arXiv 1709.09002). Then every item
    is moved repeatedly, half the way to the middle of its latest predecessor and its earliest
    successor.
    """
    pairs = np.unique(follows(train), axis=0)
    first, second = pairs[:, 0], pairs[:, 1]
    follow = sparse.coo_matrix((np.ones(len(pairs)), (first, second)), (num_items, num_items))
    leaving = np.asarray(follow.sum(axis=1)).ravel()
    arriving = np.asarray(follow.sum(axis=0)).ravel()
    laplacian = sparse.diags(leaving + arriving) - (follow + follow.T)
    springs, _ = cg(laplacian + 1e-3 * sparse.eye(num_items), arriving - leaving, rtol=1e-6)
    rank = _ranks(springs)
    for _ in range(_ROUNDS):
        before, after = np.full(num_items, -1.0), np.full(num_items, float(num_items))
        np.maximum.at(before, second, rank[first])
        np.minimum.at(after, first, rank[second])
        rank = _ranks(rank / 2 + (before + after) / 4)
    return rank


def follows(rows: pd.DataFrame) -> np.ndarray:
    """Pairs of neighbouring items in histories with targets, [pairs, 2]."""
    lengths = rows["history"].map(len).to_numpy() + 1
    joined = np.concatenate(
        [
            np.append(history, target)
            for history, target in zip(rows["history"], rows["target"], strict=True)
        ]
    )
    pairs = np.stack([joined[:-1], joined[1:]], axis=1)
    inside = np.ones(len(pairs), dtype=bool)
    inside[lengths.cumsum()[:-1] - 1] = False
    neighbours: np.ndarray = pairs[inside]
    return neighbours


def ascending_share(rows: pd.DataFrame, rank: np.ndarray) -> float:
    """Share of neighbouring items of these rows that ascend in an order; 0.5 by chance."""
    pairs = follows(rows)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return float((rank[pairs[:, 0]] < rank[pairs[:, 1]]).mean()) if len(pairs) else 0.5


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)

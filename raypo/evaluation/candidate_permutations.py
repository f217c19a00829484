"""Permutations of a row's candidates, which show how much their order in the prompt decides."""

from __future__ import annotations

import numpy as np
import pandas as pd


def with_permutations(rows: pd.DataFrame, num_permutations: int, seed: int) -> pd.DataFrame:
    """The rows, followed by copies with randomly permuted candidates.

    Args:
        rows: columns row, history, candidates.
        num_permutations: copies of each row.
        seed: of the permutations, which depend on the row number and the copy alone.

    Returns:
        Columns row, permutation (0 is the data set's order), history, candidates.
    """
    frames = []
    for number in range(num_permutations + 1):
        frame = rows[["row", "history", "candidates"]].assign(permutation=number)
        if number:
            frame["candidates"] = [
                np.asarray(candidates)[permutation(row, number, len(candidates), seed)]
                for row, candidates in zip(rows["row"], rows["candidates"], strict=True)
            ]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def permutation(row: int, number: int, size: int, seed: int) -> np.ndarray:
    """Positions [size] of a row's candidates in its permutation `number`; 0 is the identity."""
    if number == 0:
        return np.arange(size)
    return np.random.default_rng([seed, int(row), number]).permutation(size)


def unpermute(values: np.ndarray, row: int, number: int, seed: int) -> np.ndarray:
    """Values [size] of a row's permuted candidates, in the data set's order."""
    restored = np.empty_like(values)
    restored[permutation(row, number, len(values), seed)] = values
    return restored

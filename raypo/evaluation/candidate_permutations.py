"""Other orders of the same candidates: how much a candidate's place in the prompt decides."""

from __future__ import annotations

import numpy as np
import pandas as pd


def with_orders(rows: pd.DataFrame, orders: int, seed: int) -> pd.DataFrame:
    """The rows, and `orders` copies of each with its candidates in an order drawn by lot.

    Args:
        rows: with columns row, history, candidates.
        orders: copies of each row.
        seed: of the lots, which depend on the row's number and the copy alone.

    Returns:
        Columns row, order (0 for the data set's own), history, candidates.
    """
    frames = []
    for order in range(orders + 1):
        frame = rows[["row", "history", "candidates"]].assign(order=order)
        if order:
            frame["candidates"] = [
                np.asarray(candidates)[permutation(row, order, len(candidates), seed)]
                for row, candidates in zip(rows["row"], rows["candidates"], strict=True)
            ]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def permutation(row: int, order: int, size: int, seed: int) -> np.ndarray:
    """Which candidate stands at each place of a row's order, [size]."""
    if order == 0:
        return np.arange(size)
    return np.random.default_rng([seed, int(row), order]).permutation(size)


def in_own_order(values: np.ndarray, row: int, order: int, seed: int) -> np.ndarray:
    """Values of a row's candidates, [size], from the order asked in back to the data set's own."""
    back = np.empty_like(values)
    back[permutation(row, order, len(values), seed)] = values
    return back

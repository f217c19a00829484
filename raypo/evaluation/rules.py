"""Rules that know nothing of a user's taste, scored like a model."""

from __future__ import annotations

import numpy as np
import pandas as pd


def random_scores(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """Uniform random scores [rows, candidates]."""
    shape = (len(frame), len(frame["candidates"].iat[0]))
    return np.random.default_rng(seed).random(shape)


def popularity_scores(frame: pd.DataFrame, popularity: np.ndarray) -> np.ndarray:
    """Each candidate's occurrences in the training sequences, [rows, candidates]."""
    scores: np.ndarray = popularity[np.stack(frame["candidates"].to_list())].astype(np.float64)
    return scores

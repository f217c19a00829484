"""Rules and simple models, scored like a model: baselines of every report."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from raypo.audit.baselines import simple_scores
from raypo.data.dataset import Dataset

Rule = Literal["random", "popularity", "item-knn", "markov-chain"]
_AUDITED = {"item-knn": "item-kNN", "markov-chain": "Markov chain"}


def rule_scores(rule: Rule, dataset: Dataset, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Scores of each row's candidates by a rule, [rows, candidates].

    Args:
        rule: `random`; `popularity` in training sequences; `item-knn` and `markov-chain` as the
            audit has them, from training rows.
        dataset: training rows.
        rows: held-out rows with history and candidates.
        seed: of `random`.
    """
    if rule == "random":
        return random_scores(rows, seed)
    if rule == "popularity":
        return popularity_scores(rows, dataset.items["popularity"].to_numpy())
    return simple_scores(dataset, rows)[_AUDITED[rule]]


def random_scores(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """Uniform random scores [rows, candidates]."""
    shape = (len(frame), len(frame["candidates"].iat[0]))
    return np.random.default_rng(seed).random(shape)


def popularity_scores(frame: pd.DataFrame, popularity: np.ndarray) -> np.ndarray:
    """Each candidate's occurrences in the training sequences, [rows, candidates]."""
    scores: np.ndarray = popularity[np.stack(frame["candidates"].to_list())].astype(np.float64)
    return scores

"""Scores of a trained recommender for rows with candidates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.histories import pad_sequences


@torch.no_grad()
def score_candidates(model: SequentialRecommender, frame: pd.DataFrame) -> np.ndarray:
    """Scores [rows, candidates] of each row's candidates."""
    embeddings = model.embed(pad_sequences(list(frame["history"])))
    candidates = torch.from_numpy(np.stack(frame["candidates"].to_list()))
    scores: np.ndarray = model.score(embeddings, candidates).numpy()
    return scores


def hit_ratio(model: SequentialRecommender, frame: pd.DataFrame) -> float:
    """HitRatio@1 among each row's candidates."""
    model.eval()
    best = score_candidates(model, frame).argmax(axis=1)
    candidates = np.stack(frame["candidates"].to_list())
    return float((candidates[np.arange(len(best)), best] == frame["target"].to_numpy()).mean())

"""Scores of a fused model (`raypo fuse`) while serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from raypo.data.conditional_logit import standardised
from raypo.data.dataset import Dataset
from raypo.data.training_rows import TrainingRows
from raypo.recommenders.heuristics import fit_heuristic
from raypo.recommenders.hints import ModelScore, Score
from raypo.recommenders.train import load_recommender
from raypo.serving.runs import Fusion


class FusedScore:
    """Scores of a fused model from those of its parts."""

    def __init__(self, fusion: Fusion, dataset: Dataset) -> None:
        rows = TrainingRows.of_frame(dataset.train)
        popularity = dataset.items["popularity"].to_numpy()
        self._weight = fusion.adapter_weight
        self._parts: list[tuple[float, Score]] = [
            (weight, _heuristic(name, rows, popularity))
            for name, weight in fusion.heuristics.items()
        ]
        self._parts += [
            (weight, ModelScore(load_recommender(folder)))
            for folder, weight in fusion.recommenders.items()
        ]

    def __call__(
        self, history: Sequence[int], candidates: list[int], logps: np.ndarray
    ) -> np.ndarray:
        """Scores [k] of one user's candidates."""
        fused = self._weight * standardised(logps[None])[0]
        for weight, score in self._parts:
            own = np.asarray(score([history], np.array([candidates])), dtype=np.float64)
            fused = fused + weight * standardised(own)[0]
        return np.asarray(fused)


def _heuristic(name: str, rows: TrainingRows, popularity: np.ndarray) -> Score:
    if name == "popularity":
        return lambda histories, candidates: popularity[candidates].astype(np.float64)
    fitted: Callable[..., np.ndarray] = replace(
        fit_heuristic(name, rows, len(popularity)),  # type: ignore[arg-type]
        popularity=popularity,
    )
    return fitted

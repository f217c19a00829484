"""Calibration of likelihoods: confidence in the first candidate against hit ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's likelihoods over the candidates.

    Attributes:
        error: expected calibration error (Naeini et al., AAAI 2015): mean distance between
            confidence and hit ratio over bins, weighted by their rows.
        bins: (mean confidence, hit ratio, rows) of bins of equal width, without empty ones.
    """

    error: float
    bins: tuple[tuple[float, float, int], ...]


def calibrate(scores: np.ndarray, targets: np.ndarray, bins: int = 10) -> Calibration:
    """Calibration of softmax(scores) over each row's candidates.

    Args:
        scores: log-probs, [n, c].
        targets: position of the target among the candidates, [n].
        bins: number of bins of equal width between 0 and 1.
    """
    first = scores.argmax(axis=1)
    confidence = np.exp(scores.max(axis=1) - logsumexp(scores, axis=1))
    hits = first == targets
    numbers = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        mean = float(confidence[inside].mean())
        found.append((mean, float(hits[inside].mean()), int(inside.sum())))
    error = sum(abs(mean - ratio) * rows for mean, ratio, rows in found) / len(scores)
    return Calibration(float(error), tuple(found))

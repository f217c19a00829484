"""Whether likelihoods mean what they say: confidence in the first candidate against hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class Calibration:
    """Of a model's likelihoods over the candidates.

    Attributes:
        error: expected calibration error (Naeini et al., AAAI 2015): mean distance between
            confidence and hit ratio over bins, weighted by their rows.
        bins: of equal width in confidence, (mean confidence, hit ratio, rows), empty ones left out.
    """

    error: float
    bins: tuple[tuple[float, float, int], ...]


def calibrate(scores: np.ndarray, targets: np.ndarray, bins: int = 10) -> Calibration:
    """Calibration of softmax(scores) over each row's candidates.

    Args:
        scores: log-probs, [n, c].
        targets: the target's place among the candidates, [n].
        bins: of equal width between 0 and 1.
    """
    first = scores.argmax(axis=1)
    confidence = np.exp(scores.max(axis=1) - logsumexp(scores, axis=1))
    hits = first == targets
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        mean = float(confidence[inside].mean())
        found.append((mean, float(hits[inside].mean()), int(inside.sum())))
    error = sum(abs(mean - ratio) * rows for mean, ratio, rows in found) / len(scores)
    return Calibration(float(error), tuple(found))

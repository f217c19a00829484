"""95% bootstrap intervals over users."""

from __future__ import annotations

import numpy as np

_QUANTILES = (0.025, 0.975)
# Resamples drawn at once: 200 x 10,000 indices are 16 MB.
_CHUNK = 200


def bootstrap_interval(
    values: np.ndarray, num_bootstrap: int, seed: int, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Percentile interval of a mean, or of sum(values) / sum(weights), users drawn together.

    Args:
        values: [n], one per user.
        num_bootstrap: draws of n users with replacement.
        seed: of the draws; the same seed draws the same users, which pairs metrics and models.
        weights: [n] denominators; None is 1 each. Draws whose denominator is 0 are left out.

    Returns:
        Lower and upper end; not-a-number both where there is nothing to resample.
    """
    weights = np.ones_like(values, dtype=np.float64) if weights is None else weights
    generator = np.random.default_rng(seed)
    estimates = []
    for start in range(0, num_bootstrap, _CHUNK):
        shape = (min(_CHUNK, num_bootstrap - start), len(values))
        drawn = generator.integers(len(values), size=shape)
        bottom = weights[drawn].sum(axis=1)
        kept = bottom > 0
        estimates.append(values[drawn].sum(axis=1)[kept] / bottom[kept])
    everything = np.concatenate(estimates)
    if not len(everything):
        return float("nan"), float("nan")
    low, high = np.quantile(everything, _QUANTILES)
    return float(low), float(high)

"""95% bootstrap intervals over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_QUANTILES = (0.025, 0.975)
# Resamples drawn at once: 200 x 10,000 indices are 16 MB.
_CHUNK = 200


@dataclass(frozen=True)
class Resampling:
    """Bootstrap resamples: their number, and the seed that they are drawn with."""

    num_bootstrap: int
    seed: int


# scipy.stats.bootstrap gives the same intervals to 1e-12. At 20,000 users and 2,000 resamples it is
# faster for means (0.39 s against 0.52 s) and slower for ratios (0.75 s against 0.51 s). It raises
# for a group of one user, and gives not-a-number where one resample has a denominator of 0.
def bootstrap_interval(
    values: np.ndarray,
    num_bootstrap: int,
    seed: int,
    weights: np.ndarray | None = None,
    users: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile interval of a mean, or of sum(values) / sum(weights), over resampled users.

    Rows of one user are not independent, so a user is drawn with all of its rows: the cluster
    bootstrap (Field and Welsh, JRSS B 69, 2007).

    Args:
        values: one per row, [n].
        num_bootstrap: resamples, of as many users as there are, with replacement.
        seed: of the resamples; the same seed draws the same users, which pairs metrics and models.
        weights: denominators, [n]; None is 1 each. Resamples with a denominator of 0 are left out.
        users: of the rows, [n]; None is a user for each row.

    Returns:
        Lower and upper end; not-a-number both where no resample has a value.
    """
    weights = np.ones_like(values, dtype=np.float64) if weights is None else weights
    if users is not None:
        numbers, _ = pd.factorize(users)
        values, weights = (np.bincount(numbers, one) for one in (values, weights))
    generator = np.random.default_rng(seed)
    estimates = []
    for start in range(0, num_bootstrap, _CHUNK):
        shape = (min(_CHUNK, num_bootstrap - start), len(values))
        drawn = generator.integers(len(values), size=shape)
        denominators = weights[drawn].sum(axis=1)
        valid = denominators > 0
        estimates.append(values[drawn].sum(axis=1)[valid] / denominators[valid])
    everything = np.concatenate(estimates)
    if not len(everything):
        return float("nan"), float("nan")
    low, high = np.quantile(everything, _QUANTILES)
    return float(low), float(high)

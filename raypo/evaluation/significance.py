"""Tests of whether one model is better than another on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import convolve
from scipy.stats import binom

from raypo.evaluation.intervals import bootstrap_interval


@dataclass(frozen=True)
class Comparison:
    """HitRatio@1 of a model compared with another on the same rows.

    Attributes:
        difference: of the hit ratios. low, high: its 95% paired bootstrap interval.
        only_first, only_second: rows in which only one of the two has a hit.
        p_value: of `mcnemar_exact`. adjusted: after Holm's correction for several models.
    """

    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5% level after correction."""
        return self.adjusted < 0.05


def mcnemar_exact(first: np.ndarray, second: np.ndarray, users: np.ndarray | None = None) -> float:
    """Two-sided p-value of McNemar's exact test (Psychometrika 12, 1947) of paired hits.

    Rows of one user are not independent, so the two models are swapped for all rows of a user at
    once: P(|sum_u s_u d_u| >= |sum_u d_u|) for random signs s_u, with d_u a user's hits of the
    first model minus those of the second. With one row per user this is McNemar's test.

    Args:
        first: hits of one model, bool [n].
        second: hits of the other, bool [n].
        users: of the rows, [n]; None is a user for each row.
    """
    differences = first.astype(np.int64) - second.astype(np.int64)
    if users is not None:
        numbers, _ = pd.factorize(users)
        differences = np.bincount(numbers, differences).astype(np.int64)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    sums = np.ones(1)  # probabilities of -m, ..., m, with m the largest possible sum
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(2 * size * count + 1)
        own[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        sums = convolve(sums, own).clip(0)
    zero, observed = len(sums) // 2, abs(int(differences.sum()))
    return float(min(1.0, sums[: zero - observed + 1].sum() + sums[zero + observed :].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values after Holm's step-down correction (1979), in the same order."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(order))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(order) - rank)))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def compare(
    hits: Sequence[np.ndarray],
    baseline: np.ndarray,
    num_bootstrap: int,
    seed: int,
    users: np.ndarray | None = None,
) -> list[Comparison]:
    """Each model compared with the baseline, corrected for the number of models.

    Args:
        hits: of each model, `row_hits` [n]: the chance of a hit, between 0 and 1 where candidates
            tie.
        baseline: likewise of the model that they are compared with.
        num_bootstrap: resamples of the paired bootstrap, which draws users.
        seed: of the resamples.
        users: of the rows, [n]; None is a user for each row.
    """
    p_values = [mcnemar_exact(own > 0.5, baseline > 0.5, users) for own in hits]
    compared = []
    for own, p_value, adjusted in zip(hits, p_values, holm(p_values), strict=True):
        low, high = bootstrap_interval(own - baseline, num_bootstrap, seed, users=users)
        compared.append(
            Comparison(
                float((own - baseline).mean()),
                low,
                high,
                int(((own > 0.5) & ~(baseline > 0.5)).sum()),
                int(((baseline > 0.5) & ~(own > 0.5)).sum()),
                p_value,
                adjusted,
            )
        )
    return compared

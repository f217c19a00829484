"""Tests of whether one model is better than another on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from raypo.evaluation.intervals import bootstrap_interval


@dataclass(frozen=True)
class Comparison:
    """HitRatio@1 of a model compared with another on the same rows.

    Attributes:
        difference: of the hit ratios. low, high: its 95% paired bootstrap interval.
        only_first, only_second: rows in which only one of the two has a hit.
        p_value: of McNemar's exact test. adjusted: after Holm's correction for several models.
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


def mcnemar_exact(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test (Psychometrika 12, 1947) of paired hits.

    Args:
        first: hits of one model, bool [n].
        second: hits of the other, bool [n].
    """
    only_first = int((first & ~second).sum())
    discordant = only_first + int((second & ~first).sum())
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


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
        users: of the rows, [n]; None is a user for each row. McNemar's test takes rows as
            independent whatever their users.
    """
    p_values = [mcnemar_exact(own > 0.5, baseline > 0.5) for own in hits]
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

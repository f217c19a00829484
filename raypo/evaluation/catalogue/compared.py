"""How much the order of models by sampled candidates says of their order by the whole catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau


@dataclass(frozen=True)
class OrderAgreement:
    """Kendall's tau-b between two orders of models.

    Attributes:
        tau: 1 where both order models alike, -1 where one reverses the other.
        low, high: 95% percentile bootstrap interval over users, drawn for both orders at once.
        num_models: how many are ordered.
    """

    tau: float
    low: float
    high: float
    num_models: int


def order_agreement(
    sampled: Mapping[str, np.ndarray],
    full: Mapping[str, np.ndarray],
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> OrderAgreement | None:
    """Kendall's tau between the models' means of two metrics, on the same rows.

    Args:
        sampled: each model's metric among sampled candidates, one value per row, [n].
        full: likewise over the whole catalogue; models that are in both count.
        num_bootstrap: resamples.
        seed: of the resamples.

    Returns:
        None with fewer than three models.
    """
    names = [name for name in sampled if name in full]
    if len(names) < 3:
        return None
    first = np.stack([sampled[name] for name in names])
    second = np.stack([full[name] for name in names])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(first.shape[1], size=(num_bootstrap, first.shape[1]))
    taus = [_tau(first[:, rows].mean(axis=1), second[:, rows].mean(axis=1)) for rows in drawn]
    low, high = np.nanquantile(taus, (0.025, 0.975))
    return OrderAgreement(
        _tau(first.mean(axis=1), second.mean(axis=1)), float(low), float(high), len(names)
    )


def _tau(first: np.ndarray, second: np.ndarray) -> float:
    return float(kendalltau(first, second).statistic)

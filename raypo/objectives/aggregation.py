"""Aggregations: from gaps between the chosen and each negative to scores that the link reads.

Each takes gaps g_i = beta_i (R+ - R-_i) [b, E], which negatives count [b, E] and the margin gamma
(scalar or [b, E]), and gives scores [b, S] with weights [b, S]; a user's loss is the weighted sum
of the link's losses. A user without a negative has weight 0: nothing is asked of it, but the mean
over users still counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Aggregation = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def pairwise(gaps: Tensor, counted: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """g_i - gamma for each negative, weighted equally: DPO (arXiv 2305.18290, eq. 7)."""
    scores = torch.where(counted, gaps - margin, 0.0)
    return scores, counted / counted.sum(dim=1, keepdim=True).clamp(min=1)


def softmax(gaps: Tensor, counted: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """-log sum_i exp(-g_i) - gamma: S-DPO (arXiv 2406.09215), NAPO (2508.09653)."""
    some = counted.any(dim=1, keepdim=True)
    # A row without any negative would give the gradient of log 0; its weight is 0 anyway.
    exponents = torch.where(
        some, (margin - gaps).masked_fill(~counted, -math.inf), torch.zeros_like(gaps)
    )
    return -torch.logsumexp(exponents, dim=1, keepdim=True), some.to(gaps.dtype)


def mean(gaps: Tensor, counted: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """mean_i g_i - gamma: DMPO (arXiv 2405.16127)."""
    count = counted.sum(dim=1, keepdim=True)
    scores = torch.where(counted, gaps - margin, 0.0).sum(dim=1, keepdim=True)
    return scores / count.clamp(min=1), (count > 0).to(gaps.dtype)


def merged(gaps: Tensor, counted: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """sum_i g_i - gamma: MPPO's Pair-MNM (arXiv 2412.15244)."""
    scores = torch.where(counted, gaps, 0.0).sum(dim=1, keepdim=True) - margin
    return scores, counted.any(dim=1, keepdim=True).to(gaps.dtype)


AGGREGATIONS: dict[str, Aggregation] = {
    "pairwise": pairwise,
    "softmax": softmax,
    "mean": mean,
    "merged": merged,
}

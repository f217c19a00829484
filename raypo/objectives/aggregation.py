"""Aggregations: from gaps between the chosen and each negative to scores that the link reads.

Each takes gaps g_i = beta (R+ - R-_i) [b, E], validity [b, E] and the margin gamma, and gives
scores [b, S] with weights [b, S]; a user's loss is the weighted sum of -log sigmoid(score). A user
without a valid negative has weight 0: nothing is asked of it, but the mean still counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Aggregation = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax(gaps: Tensor, valid: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """-log sum_i exp(-g_i) - gamma: S-DPO (arXiv 2406.09215, eq. 9), NAPO (2508.09653)."""
    some = valid.any(dim=1, keepdim=True)
    # A row without any valid negative would give the gradient of log 0; its weight is 0 anyway.
    exponents = torch.where(some, (-gaps).masked_fill(~valid, -math.inf), torch.zeros_like(gaps))
    scores = -torch.logsumexp(exponents, dim=1, keepdim=True) - margin
    return scores, some.to(gaps.dtype)


AGGREGATIONS: dict[str, Aggregation] = {"softmax": softmax}

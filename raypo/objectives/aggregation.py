"""Aggregations: from the reward margins of a user's negatives to the scores that the link reads.

Each takes the reward margins g_i = beta_i (R+ - R-_i) [b, E], the mask of selected negatives [b, E]
and the margin gamma (scalar or [b, E]). It returns scores [b, S] with weights [b, S]. A user's loss
is the weighted sum of the link's losses. A user without a selected negative has weight 0, and the
mean over users still counts this user.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Aggregation = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def pairwise(reward_margins: Tensor, selected: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """g_i - gamma for each negative, weighted equally: DPO (arXiv 2305.18290, eq. 7)."""
    scores = torch.where(selected, reward_margins - gamma, 0.0)
    return scores, selected / selected.sum(dim=1, keepdim=True).clamp(min=1)


def softmax(reward_margins: Tensor, selected: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """-log sum_i exp(-g_i) - gamma: S-DPO (arXiv 2406.09215), NAPO (2508.09653)."""
    has_negatives = selected.any(dim=1, keepdim=True)
    # The gradient of log 0 is not finite, even where the user's weight is 0.
    exponents = torch.where(
        has_negatives,
        (gamma - reward_margins).masked_fill(~selected, -math.inf),
        torch.zeros_like(reward_margins),
    )
    scores = -torch.logsumexp(exponents, dim=1, keepdim=True)
    return scores, has_negatives.to(reward_margins.dtype)


def mean(reward_margins: Tensor, selected: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """mean_i g_i - gamma: DMPO (arXiv 2405.16127)."""
    count = selected.sum(dim=1, keepdim=True)
    scores = torch.where(selected, reward_margins - gamma, 0.0).sum(dim=1, keepdim=True)
    return scores / count.clamp(min=1), (count > 0).to(reward_margins.dtype)


def merged(reward_margins: Tensor, selected: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """sum_i g_i - gamma: MPPO's Pair-MNM (arXiv 2412.15244)."""
    scores = torch.where(selected, reward_margins, 0.0).sum(dim=1, keepdim=True) - gamma
    return scores, selected.any(dim=1, keepdim=True).to(reward_margins.dtype)


AGGREGATIONS: dict[str, Aggregation] = {
    "pairwise": pairwise,
    "softmax": softmax,
    "mean": mean,
    "merged": merged,
}

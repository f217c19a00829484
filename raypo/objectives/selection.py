"""Selection: which negatives of E_u a step learns from. Reads the policy's summed log-probs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raypo.objectives.clustering import top_cluster


@dataclass(frozen=True)
class All:
    """Every valid negative."""

    kind: str = "all"

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Which negatives [b, E], of chosen [b] and rejected [b, E] log-probs."""
        return valid


@dataclass(frozen=True)
class Boundary:
    """Boundary-critical negatives (DynamicPO, arXiv 2605.00327, section 3.2).

    Stage 1: those that the policy prefers to the chosen, if there are any. Stage 2: else the
    cluster of highest log-probs of a 3-means clustering. Without stage 1 it is always the cluster;
    without stage 2 a user without violations keeps all valid negatives.

    Attributes:
        kind: `boundary`, or the stage left: `violations` (stage 1) or `clusters` (stage 2).
    """

    kind: str = "boundary"

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Which negatives [b, E], of chosen [b] and rejected [b, E] log-probs."""
        calm = valid if self.kind == "violations" else top_cluster(rejected, valid)
        if self.kind == "clusters":
            return calm
        violating = (rejected > chosen[:, None]) & valid
        return torch.where(violating.any(dim=1, keepdim=True), violating, calm)


@dataclass(frozen=True)
class TopK:
    """The k valid negatives with the highest log-probs (the baseline of DynamicPO's Table 7).

    Ties go to the lower position; fewer than k valid negatives are all taken.
    """

    k: int = 5
    kind: str = "top-k"

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Which negatives [b, E], of chosen [b] and rejected [b, E] log-probs."""
        order = rejected.masked_fill(~valid, -math.inf).sort(dim=1, descending=True, stable=True)
        top = torch.zeros_like(valid).scatter_(1, order.indices[:, : self.k], True)
        return top & valid


Selection = All | Boundary | TopK

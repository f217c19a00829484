"""Selections: the negatives of E_u that a step learns from, by the policy's summed log-probs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from raypo.objectives.clustering import top_cluster
from raypo.objectives.options import positive_int, validate_options


@dataclass(frozen=True)
class All:
    """Every valid negative."""

    kind: str = "all"

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Mask [b, E] of the selected negatives, from log-probs chosen [b] and rejected [b, E]."""
        return valid


@dataclass(frozen=True)
class Boundary:
    """Boundary-critical negatives (DynamicPO, arXiv 2605.00327, section 3.2).

    Stage 1 selects the negatives that the policy prefers to the chosen item. Where there are none,
    stage 2 selects the cluster with the highest log-probs of a 3-means clustering. Without stage 1,
    the cluster is always selected. Without stage 2, a user without violations keeps all valid
    negatives.

    Attributes:
        kind: `boundary`, or the only stage: `violations` (stage 1) or `clusters` (stage 2).
    """

    kind: str = "boundary"

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Mask [b, E] of the selected negatives, from log-probs chosen [b] and rejected [b, E]."""
        otherwise = valid if self.kind == "violations" else top_cluster(rejected, valid)
        if self.kind == "clusters":
            return otherwise
        violating = (rejected > chosen[:, None]) & valid
        return torch.where(violating.any(dim=1, keepdim=True), violating, otherwise)


@dataclass(frozen=True)
class TopK:
    """The k valid negatives with the highest log-probs (the baseline of DynamicPO's Table 7).

    Ties go to the lower position. With fewer than k valid negatives, all are selected.
    """

    k: Annotated[int, positive_int("negatives that selection top-k keeps")] = 5
    kind: str = "top-k"

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def __call__(self, chosen: Tensor, rejected: Tensor, valid: Tensor) -> Tensor:
        """Mask [b, E] of the selected negatives, from log-probs chosen [b] and rejected [b, E]."""
        order = rejected.masked_fill(~valid, -math.inf).sort(dim=1, descending=True, stable=True)
        top = torch.zeros_like(valid).scatter_(1, order.indices[:, : self.k], True)
        return top & valid


Selection = All | Boundary | TopK
SELECTIONS: Mapping[str, Callable[..., Selection]] = {
    "all": All,
    "boundary": Boundary,
    "violations": partial(Boundary, "violations"),
    "clusters": partial(Boundary, "clusters"),
    "top-k": TopK,
}

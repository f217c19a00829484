"""Temperatures beta: fixed, per negative (DynamicPO) or per batch (beta-DPO); without gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raypo.objectives.rewards import REWARDS, Reward
from raypo.objectives.step import (
    Moments,
    Reading,
    Statistics,
    Step,
    as_tensor,
    local_moments,
    moving_average,
)


@dataclass(frozen=True)
class FixedBeta:
    """The same beta always."""

    beta: float = 1.0
    kind: str = "fixed"
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def moments(self, step: Step) -> None:
        """It follows nothing of the batch."""

    def __call__(
        self, step: Step, selected: Tensor, moments: Moments | None, before: Statistics
    ) -> Reading:
        """Scalar beta."""
        return Reading(as_tensor(self.beta, selected))


@dataclass(frozen=True)
class BetaPerNegative:
    """DynamicPO's dual-margin beta (arXiv 2605.00327, section 3.3).

    beta_i = beta (1 + alpha tanh((dp - dn - gamma) / (|dp| + |dn|))), dp = L+ - L-_i and
    dn = L-_i - L^e, with L^e the mean log-prob of the valid negatives that were not selected (of
    all where every one was). A zero denominator gives beta.
    """

    beta: float = 1.0
    alpha: float = 0.5
    gamma: float = 6.0
    kind: str = "per-negative"
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def moments(self, step: Step) -> None:
        """It follows nothing of the batch."""

    @torch.no_grad()
    def __call__(
        self, step: Step, selected: Tensor, moments: Moments | None, before: Statistics
    ) -> Reading:
        """Each pair's beta [b, E]; the base value where a negative is not selected."""
        easy = step.valid & ~selected
        easy = torch.where(easy.any(dim=1, keepdim=True), easy, step.valid)
        # In float64 the mean of equal float32 values differs from them by less than two different
        # ones ever do: what is zero in the formula can be told from what is small.
        chosen, rejected = step.chosen_logps[:, None].double(), step.rejected_logps.double()
        sums = torch.where(easy, rejected, 0.0).sum(dim=1, keepdim=True)
        easy_mean = sums / easy.sum(dim=1, keepdim=True).clamp(min=1)
        positive, negative = chosen - rejected, rejected - easy_mean
        size = positive.abs() + negative.abs()
        zero = size <= 1e-12 * (chosen.abs() + rejected.abs())
        ratio = (positive - negative - self.gamma) / torch.where(zero, 1.0, size)
        change = torch.where(selected & ~zero, self.alpha * torch.tanh(ratio), 0.0).float()
        return Reading(self.beta * (1 + change))


@dataclass(frozen=True)
class BetaPerBatch:
    """beta-DPO's batch-level beta (arXiv 2407.08639).

    M_i = beta ((L+ - Lref+) - (L-_i - Lref-_i)); the batch's beta is
    [1 + alpha (mean M - M_0)] beta, at least 1e-3; M_0 is a moving average of mean M that starts
    at the first batch's, used first and updated after.
    """

    beta: float = 0.1
    alpha: float = 0.6
    momentum: float = 0.9
    kind: str = "per-batch"
    measure: Reward | None = REWARDS["reference"]
    statistics: tuple[str, ...] = ("gap_baseline",)
    floor = 1e-3

    def moments(self, step: Step) -> Tensor:
        """Of M over this worker's valid pairs [3]."""
        return local_moments(self.beta * step.gaps["temperature"], step.valid)

    def __call__(
        self, step: Step, selected: Tensor, moments: Moments | None, before: Statistics
    ) -> Reading:
        """Scalar beta of this batch; M_0 stays where a batch has no valid pair."""
        assert moments is not None
        baseline = before.get("gap_baseline", moments.mean)
        beta = self.beta
        after: Mapping[str, float] = before
        if moments.count:
            beta = max(self.floor, (1 + self.alpha * (moments.mean - baseline)) * self.beta)
            after = {"gap_baseline": moving_average(self.momentum, baseline, moments.mean)}
        return Reading(as_tensor(beta, selected), {"gap_baseline": baseline}, after)


Temperature = FixedBeta | BetaPerNegative | BetaPerBatch

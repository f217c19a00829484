"""Temperatures beta: fixed, per negative (DynamicPO) or per batch (beta-DPO); without gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from raypo.objectives.loss_context import LossContext, ParamValue, Statistics, as_tensor
from raypo.objectives.moments import Moments, local_moments, moving_average
from raypo.objectives.options import fraction, number, positive, validate_options
from raypo.objectives.rewards import REWARDS, Reward


@dataclass(frozen=True)
class FixedBeta:
    """The same beta always."""

    beta: Annotated[float, positive("temperature of the reward")] = 1.0
    kind: str = "fixed"
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> list[Tensor]:
        """Empty: a fixed temperature reads nothing of the batch."""
        return []

    def __call__(
        self,
        context: LossContext,
        selected: Tensor,
        moments: Sequence[Moments],
        statistics: Statistics,
    ) -> ParamValue:
        """Scalar beta."""
        return ParamValue(as_tensor(self.beta, selected))

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """Empty: there are no moving statistics."""
        return {}


@dataclass(frozen=True)
class BetaPerNegative:
    """DynamicPO's dual-margin beta (arXiv 2605.00327, section 3.3).

    beta_i = beta (1 + alpha tanh((dp - dn - gamma) / (|dp| + |dn|))), dp = L+ - L-_i and
    dn = L-_i - L^e, with L^e the mean log-prob of the valid negatives that were not selected (of
    all where every one was). A zero denominator gives beta.
    """

    beta: Annotated[float, positive("beta_0, the base of each negative's temperature")] = 1.0
    alpha: Annotated[float, number("DynamicPO's alpha: how far beta moves from beta_0")] = 0.5
    gamma: Annotated[float, number("DynamicPO's gamma: the offset between dp and dn in beta")] = 6.0
    kind: str = "per-negative"
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> list[Tensor]:
        """Empty: each negative's beta reads its own user's log-probs."""
        return []

    @torch.no_grad()
    def __call__(
        self,
        context: LossContext,
        selected: Tensor,
        moments: Sequence[Moments],
        statistics: Statistics,
    ) -> ParamValue:
        """Beta [b, E] of each pair; the base value where a negative is not selected."""
        easy = context.valid & ~selected
        easy = torch.where(easy.any(dim=1, keepdim=True), easy, context.valid)
        # In float64 the mean of equal float32 values differs from them by less than any two
        # different ones do. Zero in the formula and a small number are therefore distinguishable.
        chosen, rejected = context.chosen_logps[:, None].double(), context.rejected_logps.double()
        sums = torch.where(easy, rejected, 0.0).sum(dim=1, keepdim=True)
        easy_mean = sums / easy.sum(dim=1, keepdim=True).clamp(min=1)
        positive_margin, negative_margin = chosen - rejected, rejected - easy_mean
        abs_sum = positive_margin.abs() + negative_margin.abs()
        zero = abs_sum <= 1e-12 * (chosen.abs() + rejected.abs())
        ratio = (positive_margin - negative_margin - self.gamma) / torch.where(zero, 1.0, abs_sum)
        change = torch.where(selected & ~zero, self.alpha * torch.tanh(ratio), 0.0).float()
        return ParamValue(self.beta * (1 + change))

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """Empty: there are no moving statistics."""
        return {}


@dataclass(frozen=True)
class BetaPerBatch:
    """beta-DPO's batch-level beta (arXiv 2407.08639).

    M_i = beta ((L+ - Lref+) - (L-_i - Lref-_i)). The batch's beta is
    [1 + alpha (mean M - M_0)] beta, at least 1e-3. M_0 is a moving average of mean M that starts
    at the first batch's value; it is used first and updated after.
    """

    beta: Annotated[float, positive("beta_0, the base of the batch's temperature")] = 0.1
    alpha: Annotated[float, number("how strongly beta follows the batch's reward margins")] = 0.6
    momentum: Annotated[float, fraction("m of the moving average M_0")] = 0.9
    kind: str = "per-batch"
    measure: Reward | None = REWARDS["reference"]
    statistics: tuple[str, ...] = ("gap_baseline",)
    floor = 1e-3

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> list[Tensor]:
        """Local moments [3] of M over this rank's valid pairs."""
        return [local_moments(self.beta * context.reward_margins["temperature"], context.valid)]

    def __call__(
        self,
        context: LossContext,
        selected: Tensor,
        moments: Sequence[Moments],
        statistics: Statistics,
    ) -> ParamValue:
        """Scalar beta of this batch; without a valid pair it is the base value."""
        (pairs,) = moments
        baseline = statistics.get("gap_baseline", pairs.mean)
        beta = self.beta
        if pairs.count:
            beta = max(self.floor, (1 + self.alpha * (pairs.mean - baseline)) * self.beta)
        return ParamValue(as_tensor(beta, selected), {"gap_baseline": baseline})

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """M_0 after a step whose pairs have these moments; unchanged without a valid pair."""
        (pairs,) = moments
        if not pairs.count:
            return {}
        baseline = statistics.get("gap_baseline", pairs.mean)
        return {"gap_baseline": moving_average(self.momentum, baseline, pairs.mean)}


Temperature = FixedBeta | BetaPerNegative | BetaPerBatch
TEMPERATURES: Mapping[str, Callable[..., Temperature]] = {
    "fixed": FixedBeta,
    "per-negative": BetaPerNegative,
    "per-batch": BetaPerBatch,
}

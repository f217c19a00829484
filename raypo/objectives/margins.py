"""Margins gamma, which never carry gradient.

A margin is fixed, follows the recommender's confidence in the negatives (NAPO section 3.3), or
follows each pair's own distance from the reference (alpha-DPO).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from raypo.objectives.loss_context import LossContext, ParamValue, Statistics, as_tensor
from raypo.objectives.moments import Moments, local_moments, moving_average
from raypo.objectives.options import fraction, number, validate_options
from raypo.objectives.rewards import REWARDS, Reward


@dataclass(frozen=True)
class FixedMargin:
    """gamma, whatever the negatives."""

    gamma: Annotated[float, number("margin")] = 0.0
    kind: str = "fixed"
    needs_scores: bool = False
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> None:
        """None: a fixed margin reads nothing of the batch."""

    def __call__(
        self, context: LossContext, moments: Moments | None, statistics: Statistics
    ) -> ParamValue:
        """Scalar gamma."""
        return ParamValue(as_tensor(self.gamma, context.valid))


@dataclass(frozen=True)
class ConfidenceMargin:
    """NAPO's margin: gamma = [1 + alpha (c - R_0)] gamma_0, c the batch's mean confidence.

    conf(u, y) = (1 - s(u, y)) / 2, with s the recommender's score of y for u's own sequence, also
    where y was sampled for another user. c is the mean over every valid (u, y in E_u) of the global
    batch. R_0 is a moving average of c, used first and updated after.
    """

    gamma: Annotated[float, number("gamma_0, the margin at confidence R_0")] = 1.0
    alpha: Annotated[float, number("how strongly the margin follows the confidence")] = 0.3
    momentum: Annotated[float, fraction("m in R_0 <- m R_0 + (1 - m) c, the moving average")] = 0.9
    start: Annotated[
        float | None,
        number("R_0 before the first batch, else the first batch's confidence", optional=True),
    ] = None
    kind: str = "napo"
    needs_scores: bool = True
    measure: Reward | None = None
    statistics: tuple[str, ...] = ("confidence_baseline",)

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    @torch.no_grad()
    def moments(self, context: LossContext) -> Tensor:
        """Local moments [3] of the confidence over this rank's valid (u, y)."""
        batch = context.batch
        assert batch.item_scores is not None and batch.user_embeddings is not None
        scores = batch.item_scores(batch.user_embeddings, context.items)  # type: ignore[arg-type]
        return local_moments((1 - scores.double()) / 2, context.valid)

    def __call__(
        self, context: LossContext, moments: Moments | None, statistics: Statistics
    ) -> ParamValue:
        """Scalar gamma of this batch; a batch without a valid negative keeps gamma_0 and R_0."""
        assert moments is not None
        if not moments.count:
            return ParamValue(as_tensor(self.gamma, context.valid))
        start = moments.mean if self.start is None else self.start
        baseline = statistics.get("confidence_baseline", start)
        gamma = (1 + self.alpha * (moments.mean - baseline)) * self.gamma
        return ParamValue(
            as_tensor(gamma, context.valid),
            {"gamma": gamma, "confidence": moments.mean, "confidence_baseline": baseline},
            {"confidence_baseline": moving_average(self.momentum, baseline, moments.mean)},
        )


@dataclass(frozen=True)
class InstanceMargin:
    """alpha-DPO's margin (arXiv 2410.10148): gamma_0 + alpha M*, for every pair.

    M = beta ((L+ - Lref+) / |y+| - (L- - Lref-) / |y-|) and M* = (M - mu) / std. mu and std are
    moving averages of the global batch's mean and (population) standard deviation. They start at
    the first batch's values and are used first and updated after. A zero std gives M* = 0.
    """

    gamma: Annotated[float, number("gamma_0, the margin of an average pair")] = 1.0
    alpha: Annotated[
        float, number("how strongly the margin follows the pair's distance from the reference")
    ] = 0.1
    momentum: Annotated[float, fraction("m of the moving averages of mean and deviation")] = 0.9
    kind: str = "alpha-dpo"
    needs_scores: bool = False
    measure: Reward | None = REWARDS["reference-normalised"]
    statistics: tuple[str, ...] = ("margin_mean", "margin_std")

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> Tensor:
        """Local moments [3] of M over this rank's valid pairs."""
        return local_moments(context.beta * context.reward_margins["margin"], context.valid)

    def __call__(
        self, context: LossContext, moments: Moments | None, statistics: Statistics
    ) -> ParamValue:
        """Gamma [b, E] of each pair."""
        assert moments is not None
        mean = statistics.get("margin_mean", moments.mean)
        std = statistics.get("margin_std", moments.std)
        distance = context.beta * context.reward_margins["margin"]
        standardised = (distance - mean) / std if std > 0 else torch.zeros_like(distance)
        updated: Statistics = {}
        if moments.count:
            updated = {
                "margin_mean": moving_average(self.momentum, mean, moments.mean),
                "margin_std": moving_average(self.momentum, std, moments.std),
            }
        metrics = {"margin_mean": mean, "margin_std": std}
        return ParamValue(self.gamma + self.alpha * standardised, metrics, updated)


Margin = FixedMargin | ConfidenceMargin | InstanceMargin


def no_margin() -> Margin:
    """Margin 0, without an option."""
    return FixedMargin()


MARGINS: Mapping[str, Callable[..., Margin]] = {
    "none": no_margin,
    "fixed": FixedMargin,
    "napo": ConfidenceMargin,
    "alpha-dpo": InstanceMargin,
}

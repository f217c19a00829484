"""Margins gamma, which never carry gradient.

A margin is fixed, follows the recommender's confidence in the negatives (NAPO section 3.3), or
follows each pair's own distance from the reference (alpha-DPO).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from raypo.objectives.loss_context import LossContext, ParamValue, Statistics, as_tensor
from raypo.objectives.moments import Moments, local_moments, moving_average
from raypo.objectives.options import fraction, number, one_of, validate_options
from raypo.objectives.rewards import REWARDS, Reward

Confidence = Literal["cosine", "rank"]
MarginScope = Literal["batch", "negative"]


@dataclass(frozen=True)
class FixedMargin:
    """gamma, whatever the negatives."""

    gamma: Annotated[float, number("margin")] = 0.0
    kind: str = "fixed"
    inputs: tuple[str, ...] = ()
    per_pair: bool = False
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> list[Tensor]:
        """Empty: a fixed margin reads nothing of the batch."""
        return []

    def __call__(
        self, context: LossContext, moments: Sequence[Moments], statistics: Statistics
    ) -> ParamValue:
        """Scalar gamma."""
        return ParamValue(as_tensor(self.gamma, context.valid))

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """Empty: there are no moving statistics."""
        return {}


@dataclass(frozen=True)
class ConfidenceMargin:
    """NAPO's margin: gamma = [1 + alpha (c - R_0)] gamma_0, c the batch's mean confidence.

    conf(u, y) = (1 - s(u, y)) / 2, with s the recommender's score of y for u's own sequence, also
    where y was sampled for another user. c is the mean over every valid (u, y in E_u) of the global
    batch. R_0 is a moving average of c, used first and updated after.

    Two options of our own. With confidence `rank`, conf(u, y) = 1 - r, where r is the share of the
    catalogue that the recommender scores below y for u: uniform on [0, 1] over the catalogue, where
    cosines fill a small part of their range. With margin_scope `negative`, each negative has its
    own gamma_i = [1 + alpha (conf(u, y_i) - R_0)] gamma_0.
    """

    gamma: Annotated[float, number("gamma_0, the margin at confidence R_0")] = 1.0
    alpha: Annotated[float, number("how strongly the margin follows the confidence")] = 0.3
    momentum: Annotated[float, fraction("m in R_0 <- m R_0 + (1 - m) c, the moving average")] = 0.9
    start: Annotated[
        float | None,
        number("R_0 before the first batch, else the first batch's confidence", optional=True),
    ] = None
    confidence: Annotated[
        Confidence,
        one_of(("cosine", "rank"), "cosine or rank: by the recommender's score or its rank"),
    ] = "cosine"
    margin_scope: Annotated[
        MarginScope,
        one_of(("batch", "negative"), "batch or negative: one margin, or each negative its own"),
    ] = "batch"
    kind: str = "napo"
    measure: Reward | None = None
    statistics: tuple[str, ...] = ("confidence_baseline",)

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What batches must have."""
        return ("item_scores" if self.confidence == "cosine" else "item_ranks",)

    @property
    def per_pair(self) -> bool:
        """Whether pairs differ in their margin."""
        return self.margin_scope == "negative"

    @torch.no_grad()
    def _confidences(self, context: LossContext) -> Tensor:
        """conf(u, y) [b, E] in float64."""
        batch, items = context.batch, context.items
        assert batch.user_embeddings is not None and items is not None
        if self.confidence == "rank":
            assert batch.item_ranks is not None
            return 1 - batch.item_ranks(batch.user_embeddings, items).double()
        assert batch.item_scores is not None
        return (1 - batch.item_scores(batch.user_embeddings, items).double()) / 2

    def moments(self, context: LossContext) -> list[Tensor]:
        """Local moments [3] of the confidence over this rank's valid (u, y)."""
        return [local_moments(self._confidences(context), context.valid)]

    def __call__(
        self, context: LossContext, moments: Sequence[Moments], statistics: Statistics
    ) -> ParamValue:
        """Scalar gamma of this batch, or gamma [b, E]; gamma_0 without a valid negative."""
        (pairs,) = moments
        if not pairs.count:
            return ParamValue(as_tensor(self.gamma, context.valid))
        baseline = self._baseline(statistics, pairs)
        metrics = {"confidence": pairs.mean, "confidence_baseline": baseline}
        if self.margin_scope == "negative":
            distance = self._confidences(context) - baseline
            return ParamValue(((1 + self.alpha * distance) * self.gamma).float(), metrics)
        gamma = (1 + self.alpha * (pairs.mean - baseline)) * self.gamma
        return ParamValue(as_tensor(gamma, context.valid), {"gamma": gamma, **metrics})

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """R_0 after a step with these confidences; unchanged without a valid negative."""
        (pairs,) = moments
        if not pairs.count:
            return {}
        baseline = self._baseline(statistics, pairs)
        return {"confidence_baseline": moving_average(self.momentum, baseline, pairs.mean)}

    def _baseline(self, statistics: Statistics, pairs: Moments) -> float:
        start = pairs.mean if self.start is None else self.start
        return statistics.get("confidence_baseline", start)


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
    inputs: tuple[str, ...] = ()
    per_pair: bool = True
    measure: Reward | None = REWARDS["reference-normalised"]
    statistics: tuple[str, ...] = ("margin_mean", "margin_std")

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def moments(self, context: LossContext) -> list[Tensor]:
        """Local moments [3] of M over this rank's valid pairs."""
        return [local_moments(context.beta * context.reward_margins["margin"], context.valid)]

    def __call__(
        self, context: LossContext, moments: Sequence[Moments], statistics: Statistics
    ) -> ParamValue:
        """Gamma [b, E] of each pair."""
        (pairs,) = moments
        mean = statistics.get("margin_mean", pairs.mean)
        std = statistics.get("margin_std", pairs.std)
        distance = context.beta * context.reward_margins["margin"]
        standardised = (distance - mean) / std if std > 0 else torch.zeros_like(distance)
        metrics = {"margin_mean": mean, "margin_std": std}
        return ParamValue(self.gamma + self.alpha * standardised, metrics)

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """Both averages after a step whose pairs have these moments; unchanged without a pair."""
        (pairs,) = moments
        if not pairs.count:
            return {}
        mean = statistics.get("margin_mean", pairs.mean)
        std = statistics.get("margin_std", pairs.std)
        return {
            "margin_mean": moving_average(self.momentum, mean, pairs.mean),
            "margin_std": moving_average(self.momentum, std, pairs.std),
        }


@dataclass(frozen=True)
class MeanMargin:
    """NAPO-2's margin (arXiv 2508.09653, appendix B): the mean of NAPO's and of alpha-DPO's.

    gamma_i = gamma_0 + (alpha (c - R_0) gamma_0 + instance_alpha M*_i) / 2.
    """

    gamma: Annotated[float, number("gamma_0 of both margins")] = 1.0
    alpha: Annotated[float, number("how strongly NAPO's margin follows the confidence")] = 0.3
    instance_alpha: Annotated[
        float, number("how strongly alpha-DPO's follows the pair's distance from the reference")
    ] = 0.1
    momentum: Annotated[float, fraction("m of all moving averages")] = 0.9
    start: Annotated[
        float | None,
        number("R_0 before the first batch, else the first batch's confidence", optional=True),
    ] = None
    kind: str = "napo-alpha-dpo"
    inputs: tuple[str, ...] = ConfidenceMargin().inputs
    per_pair: bool = True
    measure: Reward | None = InstanceMargin.measure
    statistics: tuple[str, ...] = (*ConfidenceMargin.statistics, *InstanceMargin.statistics)

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def _parts(self) -> Sequence[ConfidenceMargin | InstanceMargin]:
        return [
            ConfidenceMargin(self.gamma, self.alpha, self.momentum, self.start),
            InstanceMargin(self.gamma, self.instance_alpha, self.momentum),
        ]

    def moments(self, context: LossContext) -> list[Tensor]:
        """Local moments [3] of the confidence, and of M."""
        return [each for part in self._parts() for each in part.moments(context)]

    def __call__(
        self, context: LossContext, moments: Sequence[Moments], statistics: Statistics
    ) -> ParamValue:
        """Gamma [b, E] of each pair."""
        values = [
            part(context, [own], statistics)
            for part, own in zip(self._parts(), moments, strict=True)
        ]
        metrics = {name: each for value in values for name, each in value.metrics.items()}
        metrics.pop("gamma", None)  # NAPO's alone; the mean over pairs is reported in its place
        return ParamValue((values[0].value + values[1].value) / 2, metrics)

    def updated(self, statistics: Statistics, moments: Sequence[Moments]) -> Statistics:
        """All averages after a step with these moments."""
        changed: dict[str, float] = {}
        for part, own in zip(self._parts(), moments, strict=True):
            changed |= part.updated(statistics, [own])
        return changed


Margin = FixedMargin | ConfidenceMargin | InstanceMargin | MeanMargin


def no_margin() -> Margin:
    """Margin 0, without an option."""
    return FixedMargin()


MARGINS: Mapping[str, Callable[..., Margin]] = {
    "none": no_margin,
    "fixed": FixedMargin,
    "napo": ConfidenceMargin,
    "alpha-dpo": InstanceMargin,
    "napo-alpha-dpo": MeanMargin,
}

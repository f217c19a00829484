"""Margins gamma, which never carry gradient.

Fixed; or following the recommender's confidence in the negatives (NAPO section 3.3); or by each
pair's own distance from the reference (alpha-DPO).
"""

from __future__ import annotations

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
class FixedMargin:
    """gamma_0, whatever the negatives."""

    gamma: float = 0.0
    kind: str = "fixed"
    needs_scores: bool = False
    measure: Reward | None = None
    statistics: tuple[str, ...] = ()

    def moments(self, step: Step) -> None:
        """It follows nothing of the batch."""

    def __call__(self, step: Step, moments: Moments | None, before: Statistics) -> Reading:
        """Scalar gamma."""
        return Reading(as_tensor(self.gamma, step.valid))


@dataclass(frozen=True)
class ConfidenceMargin:
    """NAPO's margin: gamma = [1 + alpha (c - R_0)] gamma_0, c the batch's mean confidence.

    conf(u, y) = (1 - s(u, y)) / 2, s the recommender's score of y for u's own sequence, also where
    y was sampled for another user; c is its mean over every valid (u, y in E_u) of the global
    batch. R_0 is a moving average of c, used first and updated after.

    Attributes:
        gamma: gamma_0. alpha: strength. momentum: m in R_0 <- m R_0 + (1 - m) c.
        start: R_0 before the first batch; None takes the first batch's c.
    """

    gamma: float = 1.0
    alpha: float = 0.3
    momentum: float = 0.9
    start: float | None = None
    kind: str = "napo"
    needs_scores: bool = True
    measure: Reward | None = None
    statistics: tuple[str, ...] = ("confidence_baseline",)

    @torch.no_grad()
    def moments(self, step: Step) -> Tensor:
        """Of the confidence over this worker's valid (u, y) [3]."""
        assert step.batch.item_scores is not None and step.batch.user_embeddings is not None
        scores = step.batch.item_scores(step.batch.user_embeddings, step.items)  # type: ignore[arg-type]
        return local_moments((1 - scores.double()) / 2, step.valid)

    def __call__(self, step: Step, moments: Moments | None, before: Statistics) -> Reading:
        """Scalar gamma of this batch; a batch without a valid negative keeps gamma_0 and R_0."""
        assert moments is not None
        if not moments.count:
            return Reading(as_tensor(self.gamma, step.valid), {}, before)
        start = moments.mean if self.start is None else self.start
        baseline = before.get("confidence_baseline", start)
        gamma = (1 + self.alpha * (moments.mean - baseline)) * self.gamma
        return Reading(
            as_tensor(gamma, step.valid),
            {"gamma": gamma, "confidence": moments.mean, "confidence_baseline": baseline},
            {"confidence_baseline": moving_average(self.momentum, baseline, moments.mean)},
        )


@dataclass(frozen=True)
class InstanceMargin:
    """alpha-DPO's margin (arXiv 2410.10148): gamma_0 + alpha M*, for every pair.

    M = beta ((L+ - Lref+) / |y+| - (L- - Lref-) / |y-|), M* = (M - mu) / std, mu and std moving
    averages of the global batch's mean and (population) standard deviation that start at the first
    batch's, used first and updated after. A zero std gives M* = 0.
    """

    gamma: float = 1.0
    alpha: float = 0.1
    momentum: float = 0.9
    kind: str = "alpha-dpo"
    needs_scores: bool = False
    measure: Reward | None = REWARDS["reference-normalised"]
    statistics: tuple[str, ...] = ("margin_mean", "margin_std")

    def moments(self, step: Step) -> Tensor:
        """Of M over this worker's valid pairs [3]."""
        return local_moments(step.beta * step.gaps["margin"], step.valid)

    def __call__(self, step: Step, moments: Moments | None, before: Statistics) -> Reading:
        """Each pair's gamma [b, E]."""
        assert moments is not None
        mean = before.get("margin_mean", moments.mean)
        std = before.get("margin_std", moments.std)
        measured = step.beta * step.gaps["margin"]
        normal = (measured - mean) / std if std > 0 else torch.zeros_like(measured)
        after = before
        if moments.count:
            after = {
                "margin_mean": moving_average(self.momentum, mean, moments.mean),
                "margin_std": moving_average(self.momentum, std, moments.std),
            }
        metrics = {"margin_mean": mean, "margin_std": std}
        return Reading(self.gamma + self.alpha * normal, metrics, after)


Margin = FixedMargin | ConfidenceMargin | InstanceMargin

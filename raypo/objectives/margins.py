"""Margins gamma: fixed, or following the recommender's confidence in the negatives (NAPO 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.collectives import World, total
from raypo.objectives.sharing import NegativeSet


@dataclass(frozen=True)
class Margin:
    """A step's margin.

    Attributes:
        gamma: the margin.
        confidence: mean confidence in the step's negatives, None for a fixed margin.
    """

    gamma: float
    confidence: float | None = None


@dataclass(frozen=True)
class FixedMargin:
    """gamma_0, whatever the negatives."""

    gamma: float
    needs_scores: bool = False

    def __call__(
        self, negatives: NegativeSet, batch: PreferenceBatch, world: World, baseline: float | None
    ) -> Margin:
        """The same margin always."""
        return Margin(self.gamma)


@dataclass(frozen=True)
class DynamicMargin:
    """gamma = [1 + alpha (c - R_0)] gamma_0 with c the batch's mean confidence.

    conf(u, y) = (1 - s(u, y)) / 2, s the recommender's score of y for u's own sequence, also where
    y was sampled for another user; c is its mean over every valid (u, y in E_u) of the global
    batch. R_0 is a moving average of c, used first and updated after.

    Attributes:
        gamma: gamma_0. alpha: strength. momentum: m in R_0 <- m R_0 + (1 - m) c.
        start: R_0 before the first batch; None takes the first batch's c.
    """

    gamma: float
    alpha: float
    momentum: float
    start: float | None = None
    needs_scores: bool = True

    def __call__(
        self, negatives: NegativeSet, batch: PreferenceBatch, world: World, baseline: float | None
    ) -> Margin:
        """The margin of this batch; one reduction over workers."""
        assert batch.item_scores is not None and batch.user_embeddings is not None
        assert negatives.items is not None
        with torch.no_grad():
            scores = batch.item_scores(batch.user_embeddings, negatives.items)
            confidence = (1 - scores.double()) / 2
            counted = torch.where(negatives.valid, confidence, 0.0).sum()
            sums = total(torch.stack([counted, negatives.valid.sum().double()]), world)
        mean = _mean(sums)
        before = self.baseline_before(baseline, mean)
        return Margin((1 + self.alpha * (mean - before)) * self.gamma, mean)

    def baseline_before(self, baseline: float | None, confidence: float) -> float:
        """R_0 as this batch uses it."""
        if baseline is not None:
            return baseline
        return confidence if self.start is None else self.start

    def baseline_after(self, baseline: float | None, confidence: float) -> float:
        """R_0 for the next batch."""
        before = self.baseline_before(baseline, confidence)
        return self.momentum * before + (1 - self.momentum) * confidence


def _mean(sums: Tensor) -> float:
    counted, count = sums.tolist()
    return counted / count if count else 0.5

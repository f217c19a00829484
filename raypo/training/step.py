"""Gradients of one optimiser step, the same however the step is cut into micro-batches and ranks.

An objective that couples users (shared negatives, moving statistics) is computed once for a whole
global batch: the log-probs of all micro-batches without gradient, the objective, then each
micro-batch again, with the derivative of the loss for its log-probs given (gradient caching, arXiv
2101.06983). The second forward pass is not needed where a rank has one micro-batch, nor where the
derivative for a user's log-probs depends on no other user's.

Shapes: b users of this rank's micro-batch, m = 1 + n responses each, the target's first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raypo.objectives import ObjectiveOutput
from raypo.training.bad_batch import require_finite_loss
from raypo.training.loader import GlobalBatch
from raypo.training.preference_inputs import RankShare, make_share, preference_batch
from raypo.training.step_timer import StepTimer

if TYPE_CHECKING:
    from raypo.training.trainer import Job, TrainingObjective


@dataclass
class StepTotals:
    """What this rank computed in a step.

    Attributes:
        metrics: of the objective, the mean over global batches.
        num_tokens: tokens of the packed rows, without padding.
        num_columns: columns of the packed rows.
        shares: users of each global batch.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    num_tokens: int = 0
    num_columns: int = 0
    shares: list[RankShare] = field(default_factory=list)

    def add(self, share: RankShare, metrics: Mapping[str, float], weight: float) -> None:
        """Add a global batch, whose metrics count with `weight`."""
        self.shares.append(share)
        for batch in share.batch.micro_batches:
            self.num_tokens += batch.packed.num_tokens
            self.num_columns += batch.packed.tokens.numel()
        for key, value in metrics.items():
            self.metrics[key] = self.metrics.get(key, 0.0) + value * weight


def accumulate_gradients(
    job: Job, step: int, global_batches: Sequence[GlobalBatch], timer: StepTimer
) -> StepTotals:
    """Forward and backward of all micro-batches of an optimiser step. Every rank calls it.

    Args:
        job: what is trained with.
        step: optimiser step, from 0.
        global_batches: this rank's users of the step.
        timer: of the step.

    Raises:
        StoppedRun: the loss is not finite.
    """
    weight = 1 / len(global_batches)
    totals = StepTotals()
    with job.objective.one_step():
        for index, global_batch in enumerate(global_batches):
            share = make_share(job, global_batch, timer, job.reads_vectors(step))
            is_last = index == len(global_batches) - 1
            out = _Passes(job, share, timer, (step, index), weight, is_last).run()
            totals.add(share, out.metrics, weight)
    return totals


@dataclass(frozen=True)
class _Passes:
    """Forward and backward passes of this rank's share of a global batch.

    Attributes:
        job: what is trained with.
        share: this rank's users.
        timer: of the step.
        position: optimiser step, and global batch in it.
        weight: of the global batch's loss in the step's.
        is_last: whether the optimiser step follows.
    """

    job: Job
    share: RankShare
    timer: StepTimer
    position: tuple[int, int]
    weight: float
    is_last: bool

    def run(self) -> ObjectiveOutput:
        """Accumulate the gradients; returns the objective's loss and metrics."""
        scope = self.job.objective.gradient_scope
        if len(self.share.batch.micro_batches) == 1:
            return self._in_one_pass()
        if scope == "batch":
            return self._with_cached_gradient()
        return self._with_known_gradient() if scope == "none" else self._user_by_user()

    def _in_one_pass(self) -> ObjectiveOutput:
        logps = self._forward(0)
        out, gradient = self._derivative(self.job.objective, logps.detach())
        self._backward(0, logps, gradient)
        return out

    def _with_cached_gradient(self) -> ObjectiveOutput:
        with torch.no_grad():
            logps = torch.cat([self._counted(index, self._forward(index)) for index in self])
        out, gradient = self._derivative(self.job.objective, logps)
        for index in self:
            self._backward(index, self._forward(index), gradient[self.share.batch.users(index)])
        return out

    def _with_known_gradient(self) -> ObjectiveOutput:
        """The derivative depends on no log-prob, so that it is known before the forward pass."""
        placeholders = torch.zeros(self.share.lengths.shape, device=self.job.engine.device)
        _, gradient = self._derivative(self.job.objective, placeholders)
        logps = []
        for index in self:
            own = self._forward(index)
            self._backward(index, own, gradient[self.share.batch.users(index)])
            logps.append(self._counted(index, own.detach()))
        return self._derivative(self.job.objective, torch.cat(logps))[0]

    def _user_by_user(self) -> ObjectiveOutput:
        """The derivative for a user depends on this user alone: each micro-batch has its own."""
        objective, sampler = self.job.objective.of_rank(), self.job.sampler
        logps = []
        for index in self:
            own = self._forward(index)
            counted = self._counted(index, own.detach())
            gradient = torch.zeros_like(counted)
            if len(counted):
                _, gradient = self._derivative(objective, counted, self.share.batch.users(index))
            # From the mean over these users to this rank's share of the global mean.
            scale = len(counted) * sampler.world_size / sampler.global_batch
            self._backward(index, own, gradient * scale)
            logps.append(counted.detach())
        return self._derivative(self.job.objective, torch.cat(logps))[0]

    def __iter__(self) -> Iterator[int]:
        """Indices of the micro-batches."""
        return iter(range(len(self.share.batch.micro_batches)))

    def _forward(self, index: int) -> Tensor:
        """Log-probs [b, m] of a micro-batch; the same dropout each time that it is called."""
        packed = self.share.batch.micro_batches[index].packed
        place = [self.job.sampler.seed, *self.position, index, self.job.rank]
        with self.timer.phase("forward"):
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
            return self.job.engine.logps(packed.to(self.job.engine.device))

    def _counted(self, index: int, logps: Tensor) -> Tensor:
        """Log-probs without those of a user that is only repeated."""
        return logps[: self.share.batch.counts[index]]

    def _derivative(
        self, objective: TrainingObjective, logps: Tensor, users: slice = slice(None)
    ) -> tuple[ObjectiveOutput, Tensor]:
        """The objective of these users, and the derivative [b, m] of this rank's share of it."""
        with self.timer.phase("objective"):
            logps = logps.requires_grad_()
            out = objective(preference_batch(self.share, logps, users))
            require_finite_loss(self.job, self.share, out.loss.item(), logps, users)
            (gradient,) = torch.autograd.grad(out.loss, logps)
        return out, gradient

    def _backward(self, index: int, logps: Tensor, gradient: Tensor) -> None:
        """Backward of a micro-batch; a repeated user has gradient zero."""
        full = torch.zeros_like(logps)
        full[: len(gradient)] = gradient * self.weight
        is_last = self.is_last and index == len(self.share.batch.micro_batches) - 1
        with self.timer.phase("backward"):
            self.job.engine.backward(logps, full, is_last)

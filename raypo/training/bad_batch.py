"""Losses and gradients that are not finite: no step is taken with them, and the users are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from raypo.errors import StoppedRun
from raypo.training.preference_inputs import RankShare

if TYPE_CHECKING:
    from raypo.training.reporter import Reporter
    from raypo.training.trainer import Job


class NonFiniteLoss(Exception):
    """The loss of some users is not finite."""

    def __init__(self, loss: float, users: list[dict[str, Any]]) -> None:
        super().__init__(f"the loss is {loss}")
        self.users = users


def require_finite_loss(
    job: Job, share: RankShare, loss: float, logps: Tensor, users: slice
) -> None:
    """Raise where the loss is not finite.

    Args:
        job: what is trained with.
        share: this rank's users of the global batch.
        loss: this rank's share of the loss.
        logps: [b, m] of the users that it is the loss of.
        users: where they stand in the share.

    Raises:
        NonFiniteLoss: with the users and their log-probs.
    """
    if math.isfinite(loss):
        return
    described = _describe(job, [share])[users]
    values = [[str(value) for value in own] for own in logps.tolist()]  # JSON has no infinity
    pairs = zip(described, values, strict=True)
    raise NonFiniteLoss(loss, [user | {"logps": own} for user, own in pairs])


def stopped_by_loss(job: Job, error: NonFiniteLoss, reporter: Reporter) -> StoppedRun:
    """Keep the users for inspection; returns the error to raise."""
    return _stopped(job, str(error), error.users, reporter)


def stopped_by_gradient(
    job: Job, norm: float, shares: Sequence[RankShare], reporter: Reporter
) -> StoppedRun:
    """Keep the step's users for inspection; returns the error to raise."""
    return _stopped(job, f"the gradient norm is {norm}", _describe(job, shares), reporter)


def _describe(job: Job, shares: Sequence[RankShare]) -> list[dict[str, Any]]:
    """Training row and titles of each user that counts."""
    titles = job.make_batch.encoder.titles
    return [
        {
            "training_row": int(row),
            "chosen": titles[int(chosen)],
            "rejected": [titles[int(item)] for item in rejected],
        }
        for share in shares
        for batch, count in zip(share.batch.micro_batches, share.batch.counts, strict=True)
        for (_, row), chosen, rejected in list(
            zip(batch.keys, batch.chosen_items, batch.rejected_items, strict=True)
        )[:count]
    ]


def _stopped(job: Job, problem: str, users: list[dict[str, Any]], reporter: Reporter) -> StoppedRun:
    step = job.state.step + 1
    file = reporter.bad_batch({"step": step, "rank": job.rank, "problem": problem, "users": users})
    return StoppedRun(
        f"step {step}: {problem}; the batch is in {file}. No step was taken with it, and "
        "earlier checkpoints are intact. In most cases a lower optimiser.learning_rate helps, in "
        "another output folder"
    )

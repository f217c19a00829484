"""The training loop of SFT and alignment, on one rank or many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from raypo.config import OptimiserConfig, StoppedRun
from raypo.io.progress import Progress
from raypo.objectives import ObjectiveOutput, PreferenceBatch
from raypo.policy.packing import PackedResponses
from raypo.recommenders.base import SequentialRecommender
from raypo.training.batches import Batch, BatchMaker
from raypo.training.checkpoint import TrainingState, write_checkpoint
from raypo.training.engine import Engine
from raypo.training.reference import Reference
from raypo.training.reporter import Reporter
from raypo.training.sampler import BatchSampler
from raypo.training.schedule import learning_rate
from raypo.training.step_timer import StepTimer
from raypo.training.validation import ValidationSet, validate

# The metric that checkpoints are chosen by.
SCORE = "validation/HitRatio@1"


class TrainingObjective(Protocol):
    """What the loop needs of an objective of raypo.objectives, SFT included."""

    @property
    def needs_reference(self) -> bool:
        """Whether batches need reference log-probs."""

    @property
    def collective_seconds(self) -> float:
        """Time spent so far in gathers and reductions between ranks."""

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics of this rank's batch."""

    def train(self) -> None:
        """Let moving statistics be updated."""

    def state_dict(self) -> Mapping[str, Any]:
        """Moving statistics."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass
class Job:
    """Everything that the loop trains with.

    Attributes:
        engine: the policy, and how it is stepped.
        objective: gives the loss of a batch.
        sampler: training rows of each micro-batch.
        make_batch: turns training rows into tensors.
        optimiser: learning rate and its schedule.
        validation_set: what validation scores.
        eval_steps: optimiser steps between validations.
        rank: rank of this process, below `sampler.world_size`.
        reference: reference log-probs, where the objective needs them.
        recommender: the frozen sequential recommender, where the objective needs it.
        state: progress of the run.
    """

    engine: Engine
    objective: TrainingObjective
    sampler: BatchSampler
    make_batch: BatchMaker
    optimiser: OptimiserConfig
    validation_set: ValidationSet
    eval_steps: int
    rank: int = 0
    reference: Reference | None = None
    recommender: SequentialRecommender | None = None
    state: TrainingState = field(default_factory=TrainingState)


def fit(job: Job, reporter: Reporter, progress: Progress) -> TrainingState:
    """Train from `job.state` to the last step, with validations and checkpoints in between.

    Args:
        job: everything that is trained with; its state is updated.
        reporter: receives metrics and checkpoints.
        progress: called after each step.

    Raises:
        StoppedRun: the loss is not finite. No step is taken with it.
    """
    job.engine.policy.train()
    job.objective.load_state_dict(job.state.objective)
    job.objective.train()
    total = job.sampler.total_steps
    for step in range(job.state.step, total):
        metrics = _train_step(job, step, reporter)
        job.state.step = step + 1
        if job.state.step % job.eval_steps == 0 or job.state.step == total:
            _validate_and_save(job, metrics, reporter)
        else:
            reporter.metrics(metrics)
        progress(job.state.step, total, _note(job, metrics))
    return job.state


def _train_step(job: Job, step: int, reporter: Reporter) -> dict[str, Any]:
    """Take one optimiser step; returns its metrics."""
    sampler, accumulation = job.sampler, job.sampler.gradient_accumulation_steps
    rate = learning_rate(
        step, sampler.total_steps, job.optimiser.learning_rate, job.optimiser.warmup_ratio
    )
    timer = StepTimer(job.engine.device)
    collective_start = job.objective.collective_seconds
    means: dict[str, float] = {}
    num_tokens, padding = 0, 0.0
    for index in range(accumulation):
        packed, metrics = _accumulate_gradients(job, step, index, timer, reporter)
        num_tokens += packed.num_tokens
        padding += packed.padding_share / accumulation
        for key, value in metrics.items():
            means[key] = means.get(key, 0.0) + value / accumulation
    with timer.phase("optimiser"):
        norm = job.engine.step(rate)
    job.state.objective = dict(job.objective.state_dict())
    collective_seconds = job.objective.collective_seconds - collective_start
    return {
        "step": step + 1,
        "epoch": step // sampler.steps_per_epoch,
        **means,
        "gradient_norm": norm,
        "learning_rate": rate,
        "workers": sampler.world_size,
        "padding_share": padding,
        "prompts_cut": job.make_batch.encoder.cut_prompts,
        **timer.metrics(num_tokens * sampler.world_size, collective_seconds),
    }


def _accumulate_gradients(
    job: Job, step: int, index: int, timer: StepTimer, reporter: Reporter
) -> tuple[PackedResponses, dict[str, float]]:
    """Forward and backward of one micro-batch; returns its rows and the objective's metrics."""
    with timer.phase("data"):
        batch = job.make_batch(*job.sampler.micro_batch(step, index, job.rank))
        packed = batch.packed.to(job.engine.device)
    with timer.phase("reference"):
        reference = job.reference(batch) if job.reference is not None else None
    with timer.phase("forward"):
        logps = job.engine.logps(packed)
    with timer.phase("objective"):
        out = job.objective(_preference_batch(job, batch, logps, reference))
        loss = out.loss.item()
        if not math.isfinite(loss):
            raise _non_finite_loss(job, loss, batch, logps, reporter)
    with timer.phase("backward"):
        job.engine.backward(out.loss)
    return batch.packed, out.metrics


def _preference_batch(
    job: Job, batch: Batch, logps: Tensor, reference: tuple[Tensor, Tensor] | None
) -> PreferenceBatch:
    device = job.engine.device
    lengths = batch.packed.lengths.to(device)
    optional: dict[str, Any] = {}
    if reference is not None:
        optional["reference_chosen_logps"] = reference[0].to(device)
        optional["reference_rejected_logps"] = reference[1].to(device)
    if job.recommender is not None:
        with torch.no_grad():
            optional["user_embeddings"] = job.recommender.embed(batch.history_items.to(device))
        optional["item_scores"] = job.recommender.score
    return PreferenceBatch(
        chosen_logps=logps[:, 0],
        rejected_logps=logps[:, 1:],
        chosen_lengths=lengths[:, 0],
        rejected_lengths=lengths[:, 1:],
        chosen_items=batch.chosen_items.to(device),
        rejected_items=batch.rejected_items.to(device),
        history_items=batch.history_items.to(device),
        **optional,
    )


def _non_finite_loss(
    job: Job, loss: float, batch: Batch, logps: Tensor, reporter: Reporter
) -> StoppedRun:
    """Keep the batch for inspection; returns the error to raise."""
    encoder, step = job.make_batch.encoder, job.state.step + 1
    rejected = [[encoder.titles[int(item)] for item in items] for items in batch.rejected_items]
    users = [
        {
            "training_row": int(row),
            "chosen": encoder.titles[int(chosen)],
            "rejected": titles,
            "logps": [str(value) for value in own],  # JSON has no infinity
        }
        for (_, row), chosen, titles, own in zip(
            batch.keys, batch.chosen_items, rejected, logps.tolist(), strict=True
        )
    ]
    values = {"step": step, "rank": job.rank, "loss": str(loss), "users": users}
    file = reporter.bad_batch(values)
    return StoppedRun(
        f"step {step}: the loss is {loss}; the batch is in {file}. No step was taken with it, and "
        "earlier checkpoints are intact. In most cases a lower optimiser.learning_rate helps, in "
        "another output folder"
    )


def _validate_and_save(job: Job, metrics: dict[str, Any], reporter: Reporter) -> None:
    state = job.state
    hit_ratio = validate(job.engine, job.validation_set, job.rank, job.sampler.world_size)
    if state.best is None or hit_ratio > state.best:
        state.best, state.best_step = hit_ratio, state.step
    metrics[SCORE] = hit_ratio
    tensors = job.engine.optimiser_state()
    reporter.checkpoint(
        metrics, lambda folder: write_checkpoint(folder, job.engine, tensors, state)
    )


def _note(job: Job, metrics: dict[str, Any]) -> str:
    note = f"loss {metrics['loss']:.3f}"
    if job.state.best is not None:
        note += f", validation HitRatio@1 {job.state.best:.3f}"
    return note

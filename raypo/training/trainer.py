"""The training loop of SFT and alignment, on one rank or many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist

from raypo.config import OptimiserConfig
from raypo.io.progress import Progress
from raypo.objectives import ObjectiveOutput, PreferenceBatch
from raypo.objectives.batch import GradientScope
from raypo.policy.prompt_record import PromptRecord
from raypo.recommenders.base import SequentialRecommender
from raypo.training.bad_batch import NonFiniteLoss, stopped_by_gradient, stopped_by_loss
from raypo.training.batches import BatchMaker
from raypo.training.checkpoint import TrainingState, write_checkpoint
from raypo.training.engine import Engine
from raypo.training.loader import BatchLoader
from raypo.training.reference import Reference
from raypo.training.reporter import Reporter
from raypo.training.sampler import BatchSampler
from raypo.training.schedule import learning_rate, reads_vectors
from raypo.training.self_play import SelfPlay
from raypo.training.step import accumulate_gradients
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
    def gradient_scope(self) -> GradientScope:
        """What the derivative of the loss for a user's log-probs depends on."""

    @property
    def collective_seconds(self) -> float:
        """Time spent so far in gathers and reductions between ranks."""

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics of this rank's batch."""

    def of_rank(self) -> TrainingObjective:
        """A copy for which this rank's batch is the whole batch and statistics do not move."""

    def one_step(self) -> AbstractContextManager[None]:
        """Calls in the block are one optimiser step, for the moving statistics."""

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
        sampler: training rows of each rank's micro-batches.
        make_batch: turns training rows into tensors.
        optimiser: learning rate and its schedule.
        validation_set: what validation scores.
        eval_steps: optimiser steps between validations.
        prompt: what the policy's prompts are made from.
        curriculum: `linear` reads vector hints with a probability that rises with the steps.
        rank: rank of this process, below `sampler.world_size`.
        reference: reference log-probs, where the objective needs them.
        recommender: the frozen sequential recommender, where the objective needs it.
        self_play: scores that negatives are drawn by, where they are the policy's own.
        state: progress of the run.
    """

    engine: Engine
    objective: TrainingObjective
    sampler: BatchSampler
    make_batch: BatchMaker
    optimiser: OptimiserConfig
    validation_set: ValidationSet
    eval_steps: int
    prompt: PromptRecord | None = None
    curriculum: Literal["none", "linear"] = "none"
    rank: int = 0
    reference: Reference | None = None
    recommender: SequentialRecommender | None = None
    self_play: SelfPlay | None = None
    state: TrainingState = field(default_factory=TrainingState)

    def reads_vectors(self, step: int) -> bool:
        """Whether the prompts of an optimiser step have vectors."""
        sampler = self.sampler
        return reads_vectors(self.curriculum, step, sampler.total_steps, sampler.seed)


def fit(job: Job, reporter: Reporter, progress: Progress) -> TrainingState:
    """Train from `job.state` to the last step, with validations and checkpoints in between.

    Args:
        job: everything that is trained with; its state is updated.
        reporter: receives metrics and checkpoints.
        progress: called after each step.

    Raises:
        StoppedRun: the loss or a gradient is not finite. No step is taken with it.
    """
    job.engine.policy.train()
    job.objective.load_state_dict(job.state.objective)
    job.objective.train()
    total = job.sampler.total_steps
    with BatchLoader(job) as loader:
        for step in range(job.state.step, total):
            if job.self_play is not None:
                job.self_play.before_step(step, job.engine, job.rank, progress)
            metrics = _train_step(job, step, loader, reporter)
            job.state.step = step + 1
            if job.state.step % job.eval_steps == 0 or job.state.step == total:
                loader.wait()
                _validate_and_save(job, metrics, reporter)
            else:
                reporter.metrics(metrics)
            progress(job.state.step, total, _note(job, metrics))
    return job.state


def _train_step(job: Job, step: int, loader: BatchLoader, reporter: Reporter) -> dict[str, Any]:
    """Take one optimiser step; returns its metrics."""
    sampler = job.sampler
    rate = learning_rate(
        step, sampler.total_steps, job.optimiser.learning_rate, job.optimiser.warmup_ratio
    )
    timer = StepTimer(job.engine.device)
    collective_start = job.objective.collective_seconds
    with timer.phase("data"):
        batches = loader(step)
    try:
        totals = accumulate_gradients(job, step, batches.global_batches, timer)
    except NonFiniteLoss as error:
        raise stopped_by_loss(job, error, reporter) from error
    with timer.phase("optimiser"):
        norm = job.engine.step(rate, projector_rests=not job.reads_vectors(step))
    if not math.isfinite(norm):
        raise stopped_by_gradient(job, norm, totals.shares, reporter)
    job.state.objective = dict(job.objective.state_dict())
    num_tokens, num_columns = _sum_over_ranks(job, [totals.num_tokens, totals.num_columns])
    collective_seconds = job.objective.collective_seconds - collective_start
    return {
        "step": step + 1,
        "epoch": step // sampler.steps_per_epoch,
        **totals.metrics,
        "gradient_norm": norm,
        "learning_rate": rate,
        "workers": sampler.world_size,
        "padding_share": 1 - num_tokens / num_columns,
        "prompts_cut": batches.prompts_cut,
        **_negative_metrics(job),
        **timer.metrics(num_tokens, collective_seconds),
    }


def _negative_metrics(job: Job) -> dict[str, float]:
    """Where the step's negatives came from."""
    sampler = job.make_batch.negative_sampler
    metrics = {} if sampler is None else sampler.metrics()
    if job.self_play is not None:
        metrics["negative_sampling/round"] = job.self_play.round + 1
    return metrics


def _sum_over_ranks(job: Job, values: list[int]) -> list[int]:
    if not dist.is_initialized():
        return values
    total = torch.tensor(values, device=job.engine.device)
    dist.all_reduce(total)
    return [int(value) for value in total.tolist()]


def _validate_and_save(job: Job, metrics: dict[str, Any], reporter: Reporter) -> None:
    state = job.state
    hit_ratio = validate(job.engine, job.validation_set, job.rank, job.sampler.world_size)
    if state.best is None or hit_ratio > state.best:
        state.best, state.best_step = hit_ratio, state.step
    metrics[SCORE] = hit_ratio
    tensors = job.engine.optimiser_state()
    further = job.self_play.files() if job.self_play is not None else None
    reporter.checkpoint(
        metrics,
        lambda folder: write_checkpoint(folder, job.engine, tensors, state, job.prompt, further),
    )


def _note(job: Job, metrics: dict[str, Any]) -> str:
    note = f"loss {metrics['loss']:.3f}"
    if job.state.best is not None:
        note += f", validation HitRatio@1 {job.state.best:.3f}"
    return note

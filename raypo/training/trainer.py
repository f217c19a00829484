"""The loop: SFT and alignment alike, on one process or many, without knowing who launched it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from raypo.config import OptimiserConfig, StoppedRun, ValidationConfig
from raypo.io.progress import Progress
from raypo.objectives import PreferenceBatch
from raypo.recommenders.base import SequentialRecommender
from raypo.training.batches import Batch, BatchMaker, Plan
from raypo.training.checkpoint import TrainingState, write_checkpoint
from raypo.training.engine import Engine
from raypo.training.reference import Reference
from raypo.training.schedule import learning_rate
from raypo.training.step_timer import Phases
from raypo.training.validation import validate

# The metric that checkpoints are chosen by.
SCORE = "validation/HitRatio@1"


class Reporter(Protocol):
    """Where a worker's results go; every worker calls it equally often."""

    def metrics(self, values: dict[str, Any]) -> None:
        """One optimiser step's metrics, the same on all workers."""

    def checkpoint(self, values: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Keep a checkpoint: `write` fills a folder, on one worker alone."""

    def offending(self, values: dict[str, Any]) -> Path:
        """Keep the batch that stopped the run; returns the file. One worker alone may call it."""


@dataclass
class Job:
    """All that the loop works with.

    Attributes:
        objective: of raypo.objectives; `sft` included.
        reference: reference log-probs, where the objective needs them.
        recommender: the frozen sequential recommender, where the objective needs it.
        validation_rows: rows that validation scores.
        worker: this worker's rank, of `plan.workers`.
    """

    engine: Engine
    objective: Any
    plan: Plan
    make_batch: BatchMaker
    optimiser: OptimiserConfig
    validation: ValidationConfig
    validation_rows: pd.DataFrame
    reporter: Reporter
    progress: Progress
    worker: int = 0
    reference: Reference | None = None
    recommender: SequentialRecommender | None = None
    state: TrainingState = field(default_factory=TrainingState)


def run(job: Job) -> TrainingState:
    """Train from `job.state` to the plan's end; validates and keeps checkpoints on the way.

    Raises:
        StoppedRun: the loss is not finite; nothing is stepped with it.
    """
    job.engine.policy.train()
    job.objective.load_state_dict(job.state.objective)
    job.objective.train()
    for step in range(job.state.step, job.plan.total_steps):
        metrics = _step(job, step)
        job.state.step = step + 1
        if _validates_at(job, step + 1):
            _validate_and_keep(job, metrics)
        else:
            job.reporter.metrics(metrics)
        job.progress(step + 1, job.plan.total_steps, _note(job, metrics))
    return job.state


def _validates_at(job: Job, step: int) -> bool:
    return step % job.validation.eval_steps == 0 or step == job.plan.total_steps


def _step(job: Job, step: int) -> dict[str, Any]:
    rate = learning_rate(
        step, job.plan.total_steps, job.optimiser.learning_rate, job.optimiser.warmup_ratio
    )
    phases = Phases(job.engine.device)
    collective_seconds = job.objective.collective_seconds
    sums: dict[str, float] = {}
    tokens, padding = 0, 0.0
    for micro in range(job.plan.gradient_accumulation_steps):
        with phases.phase("data"):
            batch = job.make_batch(*job.plan.micro(step, micro, job.worker))
            packed = batch.packed.to(job.engine.device)
        with phases.phase("reference"):
            reference = job.reference(batch) if job.reference is not None else None
        with phases.phase("forward"):
            logps = job.engine.logps(packed)
        with phases.phase("objective"):
            out = job.objective(_preference_batch(job, batch, logps, reference))
            _refuse_non_finite(job, out.loss, step, batch, logps)
        with phases.phase("backward"):
            job.engine.backward(out.loss)
        tokens += batch.packed.num_tokens
        padding += batch.packed.padding_share / job.plan.gradient_accumulation_steps
        for key, value in out.metrics.items():
            sums[key] = sums.get(key, 0.0) + value / job.plan.gradient_accumulation_steps
    with phases.phase("optimiser"):
        norm = job.engine.step(rate)
    job.state.objective = job.objective.state_dict()
    spent = job.objective.collective_seconds - collective_seconds
    return {
        "step": step + 1,
        "epoch": step // job.plan.steps_per_epoch,
        **sums,
        "gradient_norm": norm,
        "learning_rate": rate,
        "workers": job.plan.workers,
        "padding_share": padding,
        "prompts_cut": job.make_batch.encoder.cut_prompts,
        **phases.metrics(tokens * job.plan.workers, spent),
    }


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


def _refuse_non_finite(job: Job, loss: Tensor, step: int, batch: Batch, logps: Tensor) -> None:
    """Stop before anything is stepped with it, and leave what it came of to be looked at."""
    if math.isfinite(loss.item()):
        return
    encoder = job.make_batch.encoder
    titles = [[encoder.titles[int(item)] for item in row] for row in batch.rejected_items]
    users = [
        {
            "training_row": int(row),
            "chosen": encoder.titles[int(chosen)],
            "rejected": rejected,
            "logps": [str(value) for value in own],  # JSON knows no infinity
        }
        for (_, row), chosen, rejected, own in zip(
            batch.keys, batch.chosen_items, titles, logps.tolist(), strict=True
        )
    ]
    values = {"step": step + 1, "worker": job.worker, "loss": str(loss.item()), "users": users}
    file = job.reporter.offending(values)
    raise StoppedRun(
        f"step {step + 1}: the loss is {loss.item()}; the batch is in {file}. Nothing was stepped "
        "with it: checkpoints up to here are whole. A lower optimiser.learning_rate in another "
        "output folder is what mostly helps"
    )


def _validate_and_keep(job: Job, metrics: dict[str, Any]) -> None:
    plan = job.plan
    hit_ratio = validate(
        job.engine,
        job.validation_rows,
        job.make_batch.encoder,
        job.make_batch.pad_token_id,
        -(-plan.pool // plan.workers),
        job.worker,
        plan.workers,
    )
    state = job.state
    if state.best is None or hit_ratio > state.best:
        state.best, state.best_step = hit_ratio, state.step
    metrics[SCORE] = hit_ratio
    tensors = job.engine.optimiser_state()
    job.reporter.checkpoint(
        metrics, lambda folder: write_checkpoint(folder, job.engine, tensors, state)
    )


def _note(job: Job, metrics: dict[str, Any]) -> str:
    note = f"loss {metrics['loss']:.3f}"
    if job.state.best is not None:
        note += f", validation HitRatio@1 {job.state.best:.3f}"
    return note

"""SFT and alignment on Ray Train workers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)

from raypo.config import AlignConfig, SftConfig, StoppedRun, WorkerRange, parse_config
from raypo.io.files import read_json, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch, inputs, push, ray_storage, synced
from raypo.io.run_folder import append_metrics, forget_metrics_after, open_run, write_summary
from raypo.orchestration.checkpoints import newest_checkpoint, tell_damage
from raypo.orchestration.cluster import connect, silence_logs
from raypo.orchestration.progress_actor import progress_actor, progress_reporter
from raypo.training.job import TrainingConfig, build_job, check_inputs
from raypo.training.local import keep_adapter, write_offending
from raypo.training.tracking import Trackers
from raypo.training.trainer import SCORE, run

# What a worker leaves for the driver where going on would stop at the same place again.
STOPPED = "stopped.json"
_STAGES: dict[str, type[SftConfig] | type[AlignConfig]] = {"sft": SftConfig, "align": AlignConfig}


@synced
def train(
    config: TrainingConfig,
    progress: Progress = no_progress,
    callbacks: Sequence[UserCallback] = (),
) -> dict[str, Any]:
    """Run SFT or alignment; a finished run is recognised, an interrupted one goes on.

    Args:
        config: the stage's configuration.
        progress: told of each step.
        callbacks: Ray Train's own, told of each validation.

    Returns:
        The run's summary, as in its `summary.json`; the best adapter is in `adapter/`.

    Raises:
        InputError: anything wrong with the inputs, before Ray starts.
    """
    summary = config.output / "summary.json"
    open_run(config.output, config)
    if summary.exists():
        return dict(read_json(summary))
    _, plan = check_inputs(config)
    started = time.monotonic()
    progress(0, plan.total_steps, "starting workers")
    (config.output / STOPPED).unlink(missing_ok=True)
    push(config.output)
    tell_damage(config.output)
    connect()
    with progress_actor(progress) as board:
        result = _fit(_trainer(config, board, callbacks), config.output)
    fetch(config.output)  # what the first worker wrote, wherever it ran
    with result.get_best_checkpoint(SCORE, "max").as_directory() as folder:
        keep_adapter(Path(folder) / "adapter", config.output / "adapter")
    write_summary(config.output, SCORE, time.monotonic() - started)
    return dict(read_json(summary))


def _fit(trainer: ray.train.torch.TorchTrainer, output: Path) -> Any:
    """Train; a failure that the workers did not survive becomes a message.

    Raises:
        StoppedRun: what happened, and where to read more.
    """
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        fetch(output)
        stopped = output / STOPPED
        if stopped.exists():
            raise StoppedRun(read_json(stopped)["message"]) from None
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StoppedRun(
            f"training failed: {words[-1] if words else type(error).__name__}. Workers' output is "
            "in Ray's log folder (RAYPO_WORKER_LOGS=1 shows it); the same command goes on from the "
            f"last checkpoint in {output / 'checkpoints'}"
        ) from error


def _trainer(
    config: TrainingConfig, board: str, callbacks: Sequence[UserCallback]
) -> ray.train.torch.TorchTrainer:
    cluster = config.cluster
    on_gpu = cluster.gpus_per_worker > 0
    resources = {"CPU": cluster.cpus_per_worker}
    if on_gpu:
        resources["GPU"] = cluster.gpus_per_worker
    stage = "align" if isinstance(config, AlignConfig) else "sft"
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={
            "stage": stage,
            "config": config.model_dump(mode="json"),
            "board": board,
        },
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=_number(cluster.workers), use_gpu=on_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="checkpoints",
            **ray_storage(config.output),
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute=SCORE, checkpoint_score_order="max"
            ),
        ),
    )


def _number(workers: int | WorkerRange) -> int | tuple[int, int]:
    """Workers as Ray Train takes them; a pair is elastic."""
    return (workers.min, workers.max) if isinstance(workers, WorkerRange) else workers


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does: build the job, take up the last checkpoint, run."""
    silence_logs()
    parsed = parse_config(_STAGES[config["stage"]], config["config"], source="train worker")
    rank = ray.train.get_context().get_world_rank()
    progress = progress_reporter(config["board"]) if rank == 0 else no_progress
    reporter = _RayReporter(parsed.output, rank)
    _refuse_stopped(parsed.output)
    for place in (parsed.output, *inputs(parsed)):
        fetch(place)
    with newest_checkpoint() as folder:
        job = build_job(parsed, rank, reporter, progress, folder)
    if rank == 0:
        forget_metrics_after(parsed.output, job.state.step)
        reporter.trackers = Trackers(parsed.output, job.state.step, parsed.mlflow)
    try:
        run(job)
    except StoppedRun as error:
        write_json(parsed.output / STOPPED, {"message": str(error)})
        push(parsed.output)
        raise
    if reporter.trackers is not None:
        reporter.trackers.close()


def _refuse_stopped(output: Path) -> None:
    """A run that would stop at the same step again is not started again by Ray."""
    if (output / STOPPED).exists():
        raise StoppedRun(read_json(output / STOPPED)["message"])


class _RayReporter:
    """Metrics into the run folder by the first worker; checkpoints through Ray Train."""

    def __init__(self, output: Path, rank: int) -> None:
        self._output = output
        self._first = rank == 0
        self.trackers: Trackers | None = None

    def metrics(self, values: dict[str, Any]) -> None:
        if self._first:
            append_metrics(self._output, values)
        if self.trackers is not None:
            self.trackers.log(values)

    def offending(self, values: dict[str, Any]) -> Path:
        return write_offending(self._output, values)

    def checkpoint(self, values: dict[str, Any], write: Callable[[Path], None]) -> None:
        self.metrics(values)
        if not self._first:
            ray.train.report(values)
            return
        push(self._output)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(values, checkpoint=Checkpoint.from_directory(folder))

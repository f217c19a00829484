"""SFT and alignment on Ray Train workers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)

from raypo.config import AlignConfig, ClusterConfig, SftConfig, WorkerRange, parse_config
from raypo.errors import StoppedRun
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch, inputs, ray_storage, synced
from raypo.orchestration.checkpoints import RayCheckpoints, warn_about_stored_damage
from raypo.orchestration.cluster import connect, silence_logs
from raypo.orchestration.progress_actor import progress_actor, progress_reporter
from raypo.orchestration.waiting import start_attempts, wait_for_resources
from raypo.training.job import TrainingConfig
from raypo.training.run import raise_if_stopped, run_rank, run_training
from raypo.training.sampler import BatchSampler
from raypo.training.trainer import SCORE

_STAGES: dict[str, type[SftConfig] | type[AlignConfig]] = {"sft": SftConfig, "align": AlignConfig}


@synced
def train(
    config: TrainingConfig,
    progress: Progress = no_progress,
    callbacks: Sequence[UserCallback] = (),
) -> dict[str, Any]:
    """Run SFT or alignment. A finished run is recognised, and an interrupted one resumes.

    Args:
        config: configuration of the stage.
        progress: called after each step.
        callbacks: Ray Train's own, called at each validation.

    Returns:
        The run's summary, as in its `summary.json`; the best adapter is in `adapter/`.

    Raises:
        InputError: an input is missing or wrong, before Ray starts.
        StoppedRun: training stopped before its end.
    """
    return run_training(config, functools.partial(_launch, progress=progress, callbacks=callbacks))


@contextlib.contextmanager
def _launch(
    config: TrainingConfig,
    sampler: BatchSampler,
    progress: Progress,
    callbacks: Sequence[UserCallback],
) -> Iterator[Path]:
    warn_about_stored_damage(config.output)
    connect()
    bundles = [worker_resources(config.cluster)] * fewest_workers(config.cluster.workers)
    wait_for_resources(bundles, "training", progress)
    progress(0, sampler.total_steps, "starting workers")
    with progress_actor(progress) as actor:
        result = _fit(_trainer(config, actor, callbacks), config.output)
    fetch(config.output)  # the files that rank 0 wrote, on whichever machine it ran
    with result.get_best_checkpoint(SCORE, "max").as_directory() as folder:
        yield Path(folder)


def _fit(trainer: ray.train.torch.TorchTrainer, output: Path) -> ray.train.Result:
    """Train; a failure that Ray could not recover from is raised with its cause.

    Raises:
        StoppedRun: the cause, and where to read more.
    """
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        failure = error
    fetch(output)
    raise_if_stopped(output)
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    raise StoppedRun(
        f"training failed: {lines[-1] if lines else type(failure).__name__}. The workers' output "
        "is in Ray's log folder (RAYPO_WORKER_LOGS=1 shows it); the same command continues from "
        f"the last checkpoint in {output / 'checkpoints'}"
    ) from failure


def _trainer(
    config: TrainingConfig, actor: str, callbacks: Sequence[UserCallback]
) -> ray.train.torch.TorchTrainer:
    cluster = config.cluster
    on_gpu = cluster.gpus_per_worker > 0
    stage = "align" if isinstance(config, AlignConfig) else "sft"
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={
            "stage": stage,
            "config": config.model_dump(mode="json"),
            "progress_actor": actor,
        },
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=_num_workers(cluster.workers),
            use_gpu=on_gpu,
            resources_per_worker=worker_resources(cluster),
        ),
        run_config=RunConfig(
            name="checkpoints",
            **ray_storage(config.output),
            callbacks=list(callbacks),
            failure_config=FailureConfig(
                max_failures=cluster.max_failures, controller_failure_limit=start_attempts()
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute=SCORE, checkpoint_score_order="max"
            ),
        ),
    )


def worker_resources(cluster: ClusterConfig) -> dict[str, float]:
    """What each training worker reserves."""
    resources = {"CPU": cluster.cpus_per_worker}
    if cluster.gpus_per_worker > 0:
        resources["GPU"] = cluster.gpus_per_worker
    return resources


def fewest_workers(workers: int | WorkerRange) -> int:
    """Workers without which training does not start."""
    return workers.min if isinstance(workers, WorkerRange) else workers


def _num_workers(workers: int | WorkerRange) -> int | tuple[int, int]:
    """Number of workers in Ray Train's form, where a pair means elastic training."""
    return (workers.min, workers.max) if isinstance(workers, WorkerRange) else workers


def train_worker(config: dict[str, Any]) -> None:
    """Train on one Ray Train worker.

    Args:
        config: `stage`, the stage's configuration as plain values, and the progress actor's name.
    """
    silence_logs()
    parsed = parse_config(_STAGES[config["stage"]], config["config"], source="train worker")
    rank = ray.train.get_context().get_world_rank()
    progress = progress_reporter(config["progress_actor"]) if rank == 0 else no_progress
    for path in (parsed.output, *inputs(parsed)):
        fetch(path)
    run_rank(parsed, rank, RayCheckpoints(parsed.output, rank), progress)

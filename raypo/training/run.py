"""The life of a training run, whatever starts its ranks and keeps its checkpoints.

`run_training` is the launcher's side: it checks the inputs, opens the run folder, has the ranks
trained, keeps the best adapter and writes the summary. `run_rank` is what each rank does.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from raypo.errors import StoppedRun
from raypo.io.files import read_json, write_json
from raypo.io.progress import Progress
from raypo.io.remote import push
from raypo.io.run_folder import check_run_folder, open_run, write_summary
from raypo.policy.precision import with_dtype
from raypo.training.job import TrainingConfig, build_job, check_inputs
from raypo.training.reporter import CheckpointStore, Reporter
from raypo.training.sampler import BatchSampler
from raypo.training.trainer import SCORE, fit

# Trains all ranks of a run to the end, and yields the folder of the best checkpoint.
Launch = Callable[[TrainingConfig, BatchSampler], AbstractContextManager[Path]]

# Written by the rank that meets a loss that is not finite, since resuming would meet it again.
_STOPPED = "stopped.json"


def run_training(config: TrainingConfig, launch: Launch) -> dict[str, Any]:
    """Run SFT or alignment from its folder to its summary.

    A finished run is recognised, and an interrupted one resumes.

    Args:
        config: configuration of the stage.
        launch: starts the ranks, each of which calls `run_rank`.

    Returns:
        The run's summary, as in its `summary.json`; the best adapter is in `adapter/`.

    Raises:
        InputError: an input is missing or wrong, before anything is started.
        StoppedRun: training stopped before its end.
    """
    config = with_dtype(config, config.cluster.gpus_per_worker > 0)
    summary = config.output / "summary.json"
    if check_run_folder(config.output, config) and summary.exists():
        return dict(read_json(summary))
    sampler = check_inputs(config).sampler
    open_run(config.output, config)
    started = time.monotonic()
    (config.output / _STOPPED).unlink(missing_ok=True)
    push(config.output)
    with launch(config, sampler) as best:
        _keep_adapter(best / "adapter", config.output / "adapter")
    write_summary(config.output, SCORE, time.monotonic() - started)
    return dict(read_json(summary))


def run_rank(
    config: TrainingConfig, rank: int, checkpoints: CheckpointStore, progress: Progress
) -> None:
    """Resume the newest checkpoint, if any, and train to the end. Every rank calls it.

    Args:
        config: configuration of the stage.
        rank: rank of this process; torch.distributed is initialised if there are several.
        checkpoints: keeps the run's checkpoints.
        progress: called after each step.

    Raises:
        StoppedRun: the loss is not finite, now or when a launcher starts the ranks again.
    """
    raise_if_stopped(config.output)
    reporter = Reporter(config.output, rank, checkpoints)
    with checkpoints.newest() as folder:
        job = build_job(config, rank, progress, folder)
    reporter.start(job.state.step, config.mlflow)
    try:
        fit(job, reporter, progress)
    except StoppedRun as error:
        write_json(config.output / _STOPPED, {"message": str(error)})
        push(config.output)
        raise
    reporter.finish()


def raise_if_stopped(output: Path) -> None:
    """Raise the StoppedRun that a rank of this run has left in its folder, if there is one."""
    if (output / _STOPPED).exists():
        raise StoppedRun(read_json(output / _STOPPED)["message"])


def _keep_adapter(source: Path, target: Path) -> None:
    """Copy a checkpoint's adapter into the run folder atomically."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)  # of a run that died before it wrote its summary
    temporary.rename(target)

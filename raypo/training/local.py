"""SFT and alignment in this very process: one worker, no Ray."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypo.config import InputError
from raypo.io.files import read_json, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import push, synced
from raypo.io.run_folder import (
    append_metrics,
    forget_metrics_after,
    open_run,
    read_metrics,
    write_summary,
)
from raypo.training.checkpoint import newest_whole
from raypo.training.job import TrainingConfig, build_job, check_inputs
from raypo.training.tracking import Trackers
from raypo.training.trainer import SCORE, run


@synced
def train_locally(config: TrainingConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Like `raypo.orchestration.train.train`, with one worker in this process.

    Raises:
        InputError: more than one worker asked for, or anything wrong with the inputs.
    """
    if config.cluster.workers != 1:
        raise InputError(f"cluster.workers: launcher local runs 1, got {config.cluster.workers}")
    summary = config.output / "summary.json"
    open_run(config.output, config)
    if summary.exists():
        return dict(read_json(summary))
    check_inputs(config)
    started = time.monotonic()
    reporter = _FolderReporter(config.output)
    checkpoint, problems = newest_whole(reporter.newest_first())
    for problem in problems:
        warn(problem, checkpoint)
    job = build_job(config, 0, reporter, progress, checkpoint)
    forget_metrics_after(config.output, job.state.step)
    reporter.trackers = Trackers(config.output, job.state.step, config.mlflow)
    run(job)
    reporter.trackers.close()
    keep_adapter(reporter.best() / "adapter", config.output / "adapter")
    write_summary(config.output, SCORE, time.monotonic() - started)
    return dict(read_json(summary))


def keep_adapter(source: Path, target: Path) -> None:
    """Copy a checkpoint's adapter into the run folder, whole or not at all."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)  # of a run that died before it wrote its summary
    temporary.rename(target)


def write_offending(output: Path, values: dict[str, Any]) -> Path:
    """Write the batch that stopped a run into its folder."""
    file = output / f"offending-step-{values['step']:08}-worker-{values['worker']}.json"
    write_json(file, values)
    return file


def warn(problem: str, checkpoint: Path | None) -> None:
    """Say that a checkpoint is damaged, and what the run goes on from instead."""
    place = f"{checkpoint}" if checkpoint is not None else "the start"
    print(f"damaged checkpoint {problem}; going on from {place}", file=sys.stderr)


class _FolderReporter:
    """Metrics and checkpoints into the run folder; the best and the last checkpoint are kept."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self.trackers: Trackers | None = None
        self._checkpoints = output / "checkpoints"

    def metrics(self, values: dict[str, Any]) -> None:
        append_metrics(self._output, values)
        if self.trackers is not None:
            self.trackers.log(values)

    def checkpoint(self, values: dict[str, Any], write: Callable[[Path], None]) -> None:
        self.metrics(values)
        folder = self._checkpoints / f"step-{values['step']:08}"
        temporary = folder.with_name(f".{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(folder, ignore_errors=True)  # damaged: the run went on from one before it
        temporary.rename(folder)
        for old in self._all():
            if old not in (folder, self.best()):
                shutil.rmtree(old)
        push(self._output)

    def offending(self, values: dict[str, Any]) -> Path:
        return write_offending(self._output, values)

    def newest_first(self) -> list[Path]:
        """All checkpoints that are kept."""
        return self._all()[::-1]

    def best(self) -> Path:
        """The checkpoint with the best validation, the earliest of equals."""
        scores = {line["step"]: line[SCORE] for line in read_metrics(self._output) if SCORE in line}
        step = max(scores, key=lambda step: (scores[step], -step))
        return self._checkpoints / f"step-{step:08}"

    def _all(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*"))

"""SFT and alignment in this very process: one worker, no Ray."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypo.config import InputError
from raypo.runs import (
    Progress,
    append_metrics,
    forget_metrics_after,
    no_progress,
    open_run,
    read_json,
    read_metrics,
    write_summary,
)
from raypo.training.job import TrainingConfig, build_job, check_inputs
from raypo.training.loop import SCORE, run
from raypo.training.tracking import Trackers


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
    job = build_job(config, 0, reporter, progress, reporter.last())
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
    temporary.rename(target)


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
        temporary.rename(folder)
        for old in self._all():
            if old not in (folder, self.best()):
                shutil.rmtree(old)

    def last(self) -> Path | None:
        """The newest checkpoint, if there is one."""
        return max(self._all(), default=None)

    def best(self) -> Path:
        """The checkpoint with the best validation, the earliest of equals."""
        scores = {line["step"]: line[SCORE] for line in read_metrics(self._output) if SCORE in line}
        step = max(scores, key=lambda step: (scores[step], -step))
        return self._checkpoints / f"step-{step:08}"

    def _all(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*"))

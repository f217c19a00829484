"""SFT and alignment in this process, with one rank and without Ray."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raypo.errors import InputError
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import push, synced
from raypo.io.run_folder import read_metrics
from raypo.training.checkpoint import newest_valid_checkpoint, warn_about_damage
from raypo.training.job import TrainingConfig
from raypo.training.run import run_rank, run_training
from raypo.training.sampler import BatchSampler
from raypo.training.trainer import SCORE


@synced
def train_locally(config: TrainingConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Like `raypo.orchestration.train.train`, with one rank in this process.

    Args:
        config: configuration of the stage.
        progress: called after each step.

    Raises:
        InputError: more than one worker is asked for, or an input is missing or wrong.
        StoppedRun: the loss is not finite.
    """
    if config.cluster.workers != 1:
        raise InputError(f"cluster.workers: launcher local runs 1, got {config.cluster.workers}")
    return run_training(config, functools.partial(_launch, progress=progress))


@contextlib.contextmanager
def _launch(config: TrainingConfig, _: BatchSampler, progress: Progress) -> Iterator[Path]:
    checkpoints = FolderCheckpoints(config.output)
    run_rank(config, 0, checkpoints, progress)
    yield checkpoints.best()


class FolderCheckpoints:
    """Checkpoints in the run folder, of which the best and the last are kept."""

    def __init__(self, output: Path) -> None:
        """Keep checkpoints in `checkpoints/` of the run folder `output`."""
        self._output = output
        self._folder = output / "checkpoints"

    @contextlib.contextmanager
    def newest(self) -> Iterator[Path | None]:
        """The newest valid checkpoint; warns about damaged ones."""
        folder, problems = newest_valid_checkpoint(self._all()[::-1])
        warn_about_damage(problems, folder)
        yield folder

    def save(self, metrics: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Keep a checkpoint of the step that `metrics` names, and remove superseded ones."""
        folder = self._folder_of(metrics["step"])
        temporary = folder.with_name(f".{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(folder, ignore_errors=True)  # damaged: the run resumed an earlier one
        temporary.rename(folder)
        for old in self._all():
            if old not in (folder, self.best()):
                shutil.rmtree(old)
        push(self._output)

    def best(self) -> Path:
        """The checkpoint with the best validation, the earliest of equals."""
        scores = {line["step"]: line[SCORE] for line in read_metrics(self._output) if SCORE in line}
        return self._folder_of(max(scores, key=lambda step: (scores[step], -step)))

    def _folder_of(self, step: int) -> Path:
        return self._folder / f"step-{step:08}"

    def _all(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

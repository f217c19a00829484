"""Checkpoints that Ray Train stores, and recovery from damaged ones."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray.train
from ray.train import Checkpoint

from raypo.io.remote import push, ray_folder
from raypo.training.checkpoint import newest_valid_checkpoint, warn_about_damage


class RayCheckpoints:
    """Checkpoints of a run as one Ray Train worker saves and restores them."""

    def __init__(self, output: Path, rank: int) -> None:
        """Keep checkpoints with Ray Train.

        Args:
            output: run folder, pushed to its URL before a checkpoint is reported.
            rank: rank of this process.
        """
        self._output = output
        self._rank = rank

    @contextlib.contextmanager
    def newest(self) -> Iterator[Path | None]:
        """The last checkpoint, or an earlier one where it is damaged."""
        last = ray.train.get_checkpoint()
        if last is None:
            yield None
            return
        folder, name = _split(last)
        older = [one for one in _stored(last.filesystem, folder) if _split(one)[1] < name]
        with _newest_valid([last, *older]) as (valid, _):
            yield valid

    def save(self, metrics: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Report to Ray Train, which is a barrier; rank 0 attaches the checkpoint."""
        if self._rank != 0:
            ray.train.report(metrics)
            return
        push(self._output)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def warn_about_stored_damage(output: Path) -> None:
    """Warn about damaged checkpoints of a run folder that a run would resume from."""
    with _newest_valid(_stored(*ray_folder(output, "checkpoints"))) as (valid, problems):
        warn_about_damage(problems, valid)


def _stored(files: pafs.FileSystem, folder: str) -> list[Checkpoint]:
    """Ray's checkpoints in a folder, newest first."""
    found = files.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    paths = [info.path for info in found if info.type == pafs.FileType.Directory]
    checkpoints = [Checkpoint(path, files) for path in sorted(paths, reverse=True)]
    return [one for one in checkpoints if _split(one)[1].startswith("checkpoint_")]


def _split(checkpoint: Checkpoint) -> tuple[str, str]:
    """Folder and name of a stored checkpoint."""
    folder, _, name = checkpoint.path.rpartition("/")
    return folder, name


@contextlib.contextmanager
def _newest_valid(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[Path | None, list[str]]]:
    """The newest readable checkpoint as a local folder, and what is wrong with newer ones."""
    problems: list[str] = []
    for checkpoint in checkpoints:
        with checkpoint.as_directory() as folder:
            valid, own_problems = newest_valid_checkpoint([Path(folder)])
            problems += [problem.replace(folder, checkpoint.path) for problem in own_problems]
            if valid is not None:
                yield valid, problems
                return
    yield None, problems

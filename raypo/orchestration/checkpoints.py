"""Ray's checkpoints of a run, wherever they are stored, and what to do where one is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.fs as pafs
import ray.train
from ray.train import Checkpoint

from raypo.io.remote import ray_folder
from raypo.training.checkpoint import newest_whole
from raypo.training.local import warn


def tell_damage(output: Path) -> None:
    """Say which of the checkpoints that a run would go on from are damaged."""
    with _newest_whole(_kept(*ray_folder(output, "checkpoints"))) as (whole, problems):
        for problem in problems:
            warn(problem, whole)


@contextlib.contextmanager
def newest_checkpoint() -> Iterator[Path | None]:
    """The last checkpoint, or the one before where it is damaged."""
    last = ray.train.get_checkpoint()
    if last is None:
        yield None
        return
    folder, _, name = last.path.rpartition("/")
    older = [one for one in _kept(last.filesystem, folder) if one.path.rpartition("/")[2] < name]
    with _newest_whole([last, *older]) as (whole, _):
        yield whole


def _kept(files: pafs.FileSystem, folder: str) -> list[Checkpoint]:
    """Ray's checkpoints in a folder, newest first."""
    found = files.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    folders = [info.path for info in found if info.type == pafs.FileType.Directory]
    return [
        Checkpoint(path, files)
        for path in sorted(folders, reverse=True)
        if path.rpartition("/")[2].startswith("checkpoint_")
    ]


@contextlib.contextmanager
def _newest_whole(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[Path | None, list[str]]]:
    """The newest checkpoint that can be read, as a local folder; what is wrong with newer ones."""
    problems: list[str] = []
    for checkpoint in checkpoints:
        with checkpoint.as_directory() as folder:
            whole, wrong = newest_whole([Path(folder)])
            problems += [problem.replace(folder, checkpoint.path) for problem in wrong]
            if whole is not None:
                yield whole, problems
                return
    yield None, problems

"""One stage of a pipeline: its folder, whether it is finished, and running it.

A stage's folder is named after a hash of its explicit settings and of all its inputs. So a finished
folder is found again, and a changed setting makes a new folder beside the old one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raypo.config import cache_folder, parse_config, with_settings
from raypo.config.base import BaseConfig
from raypo.io.files import file_hash, value_hash
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch


class Observer(Protocol):
    """Receives what a pipeline does, to show it."""

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        """Return the Progress of a stage that starts, for as long as it runs.

        Args:
            stage: its name.
            expected: seconds that it is expected to take; None where nothing is known.
            seconds_after: seconds that the stages after it are expected to take.
        """

    def finished(self, stage: str, folder: Path, seconds: float) -> None:
        """Report that a stage has ended after so many seconds, with its results in `folder`."""

    def found(self, stage: str, folder: Path) -> None:
        """Report that a stage was finished by an earlier run, in `folder`."""


class SilentObserver:
    """An Observer that shows nothing."""

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        """Return a Progress that does nothing."""
        return nullcontext(no_progress)

    def finished(self, stage: str, folder: Path, seconds: float) -> None:
        """Do nothing."""

    def found(self, stage: str, folder: Path) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Stage:
    """A stage to run.

    Attributes:
        name: of the stage, at the start of its folder's name.
        model: its configuration.
        given: the settings of its section that were given explicitly.
        filled_in: dotted key -> value of what the pipeline sets, except `output`.
        inputs: folders of earlier stages.
        action: what runs it.
        done: the file in its folder that exists once it is finished.
    """

    name: str
    model: type[BaseConfig]
    given: Mapping[str, Any]
    filled_in: Mapping[str, Any]
    inputs: tuple[Path, ...]
    action: Callable[[Any, Progress], Any]
    done: str


@dataclass(frozen=True)
class StageRunner:
    """Runs the stages of one pipeline.

    Attributes:
        output: folder of all run folders.
        weights: hash of the language model's files.
        expected_minutes: stage -> minutes, in the stages' order.
        observer: receives the start and the end of every stage.
    """

    output: Path
    weights: str
    expected_minutes: Mapping[str, float]
    observer: Observer

    def run(self, stage: Stage) -> Path:
        """Run a stage unless its folder shows that it is finished; return the folder."""
        folder = self.output / f"{stage.name}-{self._key(stage)[:10]}"
        fetch(folder)
        if (folder / stage.done).exists():
            self.observer.found(stage.name, folder)
            return folder
        values = with_settings(stage.given, stage.filled_in, source=stage.name)
        config = parse_config(stage.model, values | {"output": folder}, source=stage.name)
        started = time.monotonic()
        minutes = self.expected_minutes.get(stage.name)
        expected = None if minutes is None else 60.0 * minutes
        seconds_after = self._seconds_after(stage.name)
        with self.observer.running(stage.name, expected, seconds_after) as progress:
            stage.action(config, progress)
        self.observer.finished(stage.name, folder, time.monotonic() - started)
        return folder

    def _key(self, stage: Stage) -> str:
        """Hash of a stage's explicit settings and inputs: a new default changes no folder."""
        values = with_settings(
            _portable(stage.given), _without_folders(stage.filled_in), source=stage.name
        )
        inputs = [folder.name for folder in stage.inputs]
        return value_hash([stage.name, values, inputs, self.weights])

    def _seconds_after(self, stage: str) -> float:
        """Expected seconds of all stages after this one."""
        names = list(self.expected_minutes)
        after = names[names.index(stage) + 1 :] if stage in names else []
        return 60.0 * sum(self.expected_minutes[name] for name in after)


def _without_folders(value: Any) -> Any:
    """Paths cut to their last part, which for a stage's folder contains its hash.

    So a pipeline whose output folder or cache was moved finds what it finished.
    """
    if isinstance(value, Path):
        return [value.parent.name, value.name] if value.name == "adapter" else value.name
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    return value


def _portable(value: Any) -> Any:
    """The user's paths, relative where they are below the working folder or the cache."""
    if isinstance(value, Mapping):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(inner) for inner in value]
    if isinstance(value, str | Path) and Path(value).is_absolute():
        for folder in (Path.cwd(), cache_folder()):
            if Path(value).is_relative_to(folder):
                return Path(value).relative_to(folder).as_posix()
    return value


def weights_hash(folder: Path) -> str:
    """Identify a model's weights: content of small files, name and size of large ones."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    small = {file.name: file_hash(file) for file in files if file.stat().st_size < 1 << 24}
    large = {file.name: file.stat().st_size for file in files if file.name not in small}
    return value_hash([small, large])

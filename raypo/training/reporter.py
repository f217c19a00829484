"""Reporting a run's metrics, checkpoints and bad batches, on every rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from raypo.io.files import write_json
from raypo.io.run_folder import append_metrics, forget_metrics_after
from raypo.training.tracking import Trackers


class CheckpointStore(Protocol):
    """Where a run's checkpoints are kept."""

    def newest(self) -> AbstractContextManager[Path | None]:
        """The newest valid checkpoint as a local folder, for the length of the block."""

    def save(self, metrics: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Keep a checkpoint. Every rank calls it, and rank 0's is kept.

        Args:
            metrics: of the checkpoint's step, the same on all ranks.
            write: writes the checkpoint into an empty folder. Only rank 0 needs to call it.
        """


class Reporter:
    """Reports from one rank to the run folder, the trackers and the checkpoint store.

    Every rank makes the same calls; metrics are written by rank 0 alone.
    """

    def __init__(self, output: Path, rank: int, checkpoints: CheckpointStore) -> None:
        """Report into a run folder.

        Args:
            output: run folder.
            rank: rank of this process.
            checkpoints: keeps the checkpoints.
        """
        self._output = output
        self._rank = rank
        self._checkpoints = checkpoints
        self._trackers: Trackers | None = None

    def start(self, step: int, mlflow_uri: str | None) -> None:
        """Open the trackers and drop the metrics of steps that a resumed run repeats.

        Args:
            step: step that the run resumes from; 0 is the start.
            mlflow_uri: tracking URI of MLflow, or None.
        """
        if self._rank == 0:
            forget_metrics_after(self._output, step)
            self._trackers = Trackers(self._output, step, mlflow_uri)

    def finish(self) -> None:
        """Close the trackers of a run that has ended by itself."""
        if self._trackers is not None:
            self._trackers.close()

    def metrics(self, values: dict[str, Any]) -> None:
        """Report one optimiser step's metrics, the same on all ranks."""
        if self._rank == 0:
            append_metrics(self._output, values)
        if self._trackers is not None:
            self._trackers.log(values)

    def checkpoint(self, values: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Report a step's metrics and keep a checkpoint of it; `write` fills a folder."""
        self.metrics(values)
        self._checkpoints.save(values, write)

    def bad_batch(self, values: dict[str, Any]) -> Path:
        """Write the batch whose loss is not finite; returns the file. One rank may call it."""
        name = f"bad-batch-step-{values['step']:08}-rank-{values['rank']}.json"
        write_json(self._output / name, values)
        return self._output / name

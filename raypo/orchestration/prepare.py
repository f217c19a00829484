"""Preparing and importing data as stages: folders behind URLs, Ray's workers, the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from raypo.audit import audit_summary
from raypo.config import ImportConfig, PrepareConfig, url_of
from raypo.data import importing
from raypo.data import prepare as preparing
from raypo.data.readers.sources import release_memory
from raypo.data.tasks import RunTasks, in_this_process
from raypo.errors import InputError
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import synced


@synced
def prepare(config: PrepareConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Prepare and audit a data set, on Ray's workers if the configuration asks for any.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: as `raypo.data.prepare.prepare`.
    """
    # Files that other machines wrote into a local copy of the output would be missing here.
    here = url_of(config.output) is not None
    run_tasks = on_workers(config.workers, here) if config.workers else in_this_process
    return preparing.prepare(config, progress, run_tasks, audit_summary)


@synced
def import_published(config: ImportConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Import and audit a published data set.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: as `raypo.data.importing.import_published`.
    """
    return importing.import_published(config, progress, audit_summary)


def on_workers(workers: int, here: bool = False) -> RunTasks:
    """Run tasks as a Ray Data stage.

    Tasks read and write files, so that only numbers and plain values pass through Ray's object
    store. Results come in the order of the tasks, whichever finishes first.

    Args:
        workers: cores at most.
        here: use this machine only.
    """

    def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        # Preparing in this process needs no Ray, whose import takes seconds.
        import ray.data

        from raypo.orchestration.cluster import connect, this_node
        from raypo.orchestration.waiting import wait_for_resources

        connect()
        wait_for_resources([{"CPU": 1}], "preparing")
        rows = [{"number": number} for number in range(len(tasks))]
        placed = {"scheduling_strategy": this_node()} if here else {}
        pool = ray.data.TaskPoolStrategy(size=min(workers, len(rows)))
        finished = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(_guarded(function, tuple(tasks)), compute=pool, **placed)
            .iter_rows()
        )
        waiting: dict[int, Any] = {}
        following = 0
        for row in finished:
            if row["error"] is not None:
                raise InputError(row["error"])
            waiting[row["number"]] = row["result"]
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    return run_tasks


def _guarded(
    function: Callable[[Any], Any], tasks: Sequence[Any]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return errors in the user's input as values: Ray would wrap an exception."""

    def call(row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = function(tasks[row["number"]])
            release_memory()
            return {"number": row["number"], "result": result, "error": None}
        except InputError as error:
            return {"number": row["number"], "result": None, "error": str(error)}

    return call

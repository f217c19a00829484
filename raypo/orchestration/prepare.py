"""Preparing data on Ray's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from raypo.config import InputError, PrepareConfig, url_of
from raypo.data.prepare import Each, in_this_process
from raypo.data.prepare import prepare as prepare_with
from raypo.data.readers.sources import release_memory
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import synced
from raypo.orchestration.cluster import connect, this_node


@synced
def prepare(config: PrepareConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """`raypo.data.prepare.prepare`, on Ray's workers where the configuration asks for any."""
    # What other machines wrote into a copy of the output would not be in this one.
    here = url_of(config.output) is not None
    each = on_workers(config.workers, here) if config.workers else in_this_process
    return prepare_with(config, progress, each)


def on_workers(workers: int, here: bool = False) -> Each:
    """Runs tasks as a Ray Data stage on up to `workers` cores.

    What the tasks read and write lies in files, so that nothing but numbers and plain values passes
    through Ray's object store; results come in the tasks' order, whichever is finished first. With
    `here` no other machine takes part.
    """

    def each(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        connect()
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

    return each


def _guarded(
    function: Callable[[Any], Any], tasks: Sequence[Any]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What is wrong with the user's input comes back as a value: an exception would be wrapped."""

    def call(row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = function(tasks[row["number"]])
            release_memory()
            return {"number": row["number"], "result": result, "error": None}
        except InputError as error:
            return {"number": row["number"], "result": None, "error": str(error)}

    return call

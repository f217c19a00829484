"""Progress from wherever in the cluster the work is, to the driver that shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from raypo.io.progress import Progress
from raypo.orchestration.cluster import actor_here

_SECONDS_BETWEEN_LOOKS = 0.5


class _Board:
    """Holds the latest word of whoever works."""

    def __init__(self) -> None:
        self._latest: tuple[int, int, str] | None = None

    def put(self, done: int, total: int, note: str) -> None:
        self._latest = (done, total, note)

    def latest(self) -> tuple[int, int, str] | None:
        return self._latest


@contextmanager
def progress_actor(progress: Progress) -> Iterator[str]:
    """Show with `progress` what any process of the cluster says under the name that is yielded."""
    with actor_here(_Board, "raypo-progress") as (name, board):
        finished = threading.Event()

        def look() -> None:
            latest = ray.get(board.latest.remote())
            if latest is not None:
                progress(*latest)

        def watch() -> None:
            while not finished.wait(_SECONDS_BETWEEN_LOOKS):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield name
            look()
        finally:
            finished.set()
            watcher.join()


def progress_reporter(name: str) -> Progress:
    """A Progress for use in a Ray worker, heard by the driver that made `name`."""
    board: Any = ray.get_actor(name)

    def tell(done: int, total: int, note: str = "") -> None:
        board.put.remote(done, total, note)

    return tell

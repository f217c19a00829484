"""Progress of work anywhere in the cluster, shown by the driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raypo.io.progress import Progress
from raypo.orchestration.cluster import actor_here

_POLLING_SECONDS = 0.5


class _ProgressActor:
    """Holds the latest progress."""

    def __init__(self) -> None:
        self._latest: tuple[int, int, str] | None = None

    def put(self, done: int, total: int, note: str) -> None:
        self._latest = (done, total, note)

    def latest(self) -> tuple[int, int, str] | None:
        return self._latest


@contextmanager
def progress_actor(progress: Progress) -> Iterator[str]:
    """Start an actor whose latest progress is passed on to `progress` twice a second.

    Args:
        progress: called in this process, from another thread and at the end.

    Yields:
        Name of the actor, for `progress_reporter` in any process of the cluster.
    """
    with actor_here(_ProgressActor, "raypo-progress") as (name, actor):
        finished = threading.Event()

        def show() -> None:
            latest = ray.get(actor.latest.remote())
            if latest is not None:
                progress(*latest)

        def poll() -> None:
            while not finished.wait(_POLLING_SECONDS):
                show()

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        try:
            yield name
            show()
        finally:
            finished.set()
            poller.join()


def progress_reporter(name: str) -> Progress:
    """A Progress for use in a Ray worker.

    Args:
        name: name that `progress_actor` yielded in the driver.
    """
    actor = ray.get_actor(name)

    def report(done: int, total: int, note: str = "") -> None:
        actor.put.remote(done, total, note)

    return report

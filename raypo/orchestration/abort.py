"""Ending a Ray Train run from outside, so that its cores are free before something else wants them.

Ray keeps the placement group of a run whose controller just dies, until a helper of Ray Train has
learnt of it from the cluster's dashboard; a local Ray goes without one. So a run that may have to
be ended leaves word of its controller here, which knows how to end it in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from raypo.orchestration.cluster import actor_here

_SECONDS = 60.0


class _Desk:
    """Controllers of runs that are under way, by run folder."""

    def __init__(self) -> None:
        self._controllers: dict[str, Any] = {}

    def put(self, run: str, controller: Any) -> None:
        self._controllers[run] = controller

    def take(self, run: str) -> Any:
        return self._controllers.pop(run, None)


@contextmanager
def run_registry() -> Iterator[str]:
    """A place for controllers; yields its name."""
    with actor_here(_Desk, "raypo-runs") as (name, _):
        yield name


def register_run(name: str, run: str) -> None:
    """Leave word of the run; to be called in the process of its controller."""
    controller = ray.get_runtime_context().current_actor
    ray.get(ray.get_actor(name).put.remote(run, controller))


def unregister_run(name: str, run: str) -> None:
    """The run has come to its end by itself; its controller need not be kept."""
    ray.get(ray.get_actor(name).take.remote(run))


def abort_run(name: str, run: str) -> None:
    """End the run's workers and free what they held; nothing where the run is not under way."""
    controller = ray.get(ray.get_actor(name).take.remote(run))
    if controller is None:
        return
    try:
        ray.get(controller.abort.remote(), timeout=_SECONDS)
    except ray.exceptions.RayActorError:
        pass  # ending includes the controller itself
    except ray.exceptions.GetTimeoutError:
        ray.kill(controller)

"""Aborting a Ray Train run from outside, so that its cores are free for what comes next.

When a run's controller is killed, Ray keeps its placement group until a cleaner of Ray Train has
noticed through the cluster's dashboard, which a local Ray does not have. A run that may be aborted
therefore registers its controller, which can end the run in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.actor import ActorHandle

from raypo.orchestration.cluster import actor_here

_TIMEOUT_SECONDS = 60.0


class _RunRegistry:
    """Controllers of current runs, by run folder."""

    def __init__(self) -> None:
        self._controllers: dict[str, ActorHandle] = {}

    def add(self, run: str, controller: ActorHandle) -> None:
        self._controllers[run] = controller

    def remove(self, run: str) -> ActorHandle | None:
        return self._controllers.pop(run, None)


@contextmanager
def run_registry() -> Iterator[str]:
    """Start a registry of current runs.

    Yields:
        Name of the registry, for the functions below in any process of the cluster.
    """
    with actor_here(_RunRegistry, "raypo-runs") as (name, _):
        yield name


def register_run(name: str, run: str) -> None:
    """Register a run. Call it in the process of the run's controller.

    Args:
        name: name of the registry.
        run: folder of the run.
    """
    controller = ray.get_runtime_context().current_actor
    ray.get(ray.get_actor(name).add.remote(run, controller))


def unregister_run(name: str, run: str) -> None:
    """Remove a run that has ended by itself from the registry."""
    ray.get(ray.get_actor(name).remove.remote(run))


def abort_run(name: str, run: str) -> None:
    """End a run's workers and free their resources; nothing where the run is not registered."""
    controller = ray.get(ray.get_actor(name).remove.remote(run))
    if controller is None:
        return
    try:
        ray.get(controller.abort.remote(), timeout=_TIMEOUT_SECONDS)
    except ray.exceptions.RayActorError:
        pass  # the controller ends itself last
    except ray.exceptions.GetTimeoutError:
        ray.kill(controller)

"""Waiting for cores and GPUs: with a word about who holds them, and not for ever.

Ray waits silently and without end for resources that others hold. Everything that raypo starts on a
cluster therefore reserves its resources once before, for a moment, with a limit.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util import placement_group, placement_group_table, remove_placement_group

from raypo.errors import StoppedRun
from raypo.io.progress import Progress, no_progress

# Seconds to wait at most; an environment variable, since it belongs to the cluster and not to a
# stage.
LIMIT_VARIABLE = "RAYPO_RESOURCE_TIMEOUT_S"
_DEFAULT_LIMIT = 600.0
_FIRST_WORD, _NEXT_WORDS = 15.0, 60.0


def limit_seconds() -> float:
    """Seconds after which waiting for resources ends with an error."""
    return float(os.environ.get(LIMIT_VARIABLE, _DEFAULT_LIMIT))


def start_attempts() -> int:
    """How often Ray Train may fail to start workers: it waits a minute for them each time."""
    each = float(os.environ.get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 60))
    return max(1, round(limit_seconds() / each))


def wait_for_resources(
    bundles: Sequence[Mapping[str, float]], what: str, progress: Progress = no_progress
) -> None:
    """Return when the cluster has room for these bundles; what holds it is said meanwhile.

    They are not kept: it is for the caller to reserve them next. A cluster that grows by itself is
    asked to grow.

    Args:
        bundles: resources that each process needs on one machine, such as {"CPU": 1, "GPU": 1}.
        what: what needs them, for messages.
        progress: told what is waited for.

    Raises:
        StoppedRun: there was no room for `limit_seconds`.
    """
    wanted = [{name: count for name, count in one.items() if count} for one in bundles]
    wanted = [one for one in wanted if one]
    if not wanted:
        return
    started, limit = time.monotonic(), limit_seconds()
    group = placement_group(wanted, strategy="PACK")
    try:
        while not group.wait(_seconds_to_next_word(time.monotonic() - started, limit)):
            waited = time.monotonic() - started
            message = f"{what} needs {_in_words(wanted)}; {who_holds()}"
            if waited >= limit:
                raise StoppedRun(
                    f"{message}. Waited {waited:.0f} s; free them, ask for less, or set "
                    f"{LIMIT_VARIABLE} to wait longer"
                )
            progress(0, 1, f"waiting: {message}")
    finally:
        remove_placement_group(group)
        _wait_until_removed(group)


def room_for(bundles: Sequence[Mapping[str, float]]) -> int:
    """How often these bundles fit the machines of the cluster, whatever runs on them now."""
    machines = [Counter(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    count = 0
    while all(_take(machines, bundle) for bundle in bundles):
        count += 1
    return count


def _take(machines: list[Counter[str]], bundle: Mapping[str, float]) -> bool:
    """Take a bundle from the first machine that has room for it; False where none has."""
    for machine in machines:
        if all(machine[name] >= count for name, count in bundle.items()):
            machine.subtract(bundle)
            return True
    return False


def who_holds() -> str:
    """Which resources of the cluster are in use, and by whom as far as Ray says."""
    total, free = ray.cluster_resources(), ray.available_resources()
    in_use = [
        f"{total[name] - free.get(name, 0.0):g} of {total[name]:g} {name}"
        for name in ("CPU", "GPU")
        if total.get(name)
    ]
    holders = _actors() or _groups()
    by = (
        f" by {', '.join(f'{count} x {name}' for name, count in holders.items())}"
        if holders
        else ""
    )
    return f"in use are {' and '.join(in_use) or 'no CPU and no GPU at all'}{by}"


def _actors() -> Counter[str]:
    """Actors that hold a core or GPU, by class; empty where the cluster has no dashboard to ask."""
    try:
        from ray.util.state import list_actors

        found = list_actors(filters=[("state", "=", "ALIVE")], detail=True, timeout=5)
    except Exception:  # no dashboard, an old one, or one that does not answer
        return Counter()
    return Counter(
        f"{actor.class_name} (process {actor.pid})"
        for actor in found
        if any(name.startswith(("CPU", "GPU")) for name in (actor.required_resources or {}))
    )


def _groups() -> Counter[str]:
    """Reservations (placement groups) in use, by what they hold."""
    groups: Mapping[str, Any] = placement_group_table()
    return Counter(
        f"reservation of {_in_words(list(group['bundles'].values()))}"
        for group in groups.values()
        if group["state"] == "CREATED"
    )


def _in_words(bundles: Sequence[Mapping[str, float]]) -> str:
    each = Counter(
        " + ".join(f"{count:g} {name}" for name, count in one.items()) for one in bundles
    )
    return ", ".join(f"{count} x {text}" for text, count in each.items())


def _seconds_to_next_word(waited: float, limit: float) -> float:
    following = _FIRST_WORD if waited < _FIRST_WORD else waited + _NEXT_WORDS
    return max(0.1, min(following, limit) - waited)


def _wait_until_removed(group: Any) -> None:
    """Removing takes effect later, and the resources are wanted now."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if placement_group_table(group).get("state") in (None, "REMOVED"):
            return
        time.sleep(0.05)

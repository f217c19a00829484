"""Connecting to Ray, quietly."""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypo.config.paths import local_path, uri, url_of
from raypo.io.remote import fetch


def connect(processes: int | None = None) -> None:
    """Join the cluster named by RAY_ADDRESS, or start Ray on this machine; once per process.

    Args:
        processes: how many the work needs at a time, where these are more than Ray expects on a
            machine of its own: it would print a warning among the results.
    """
    if ray.is_initialized():
        return
    silence_logs()
    address = os.environ.get("RAY_ADDRESS")
    options = {} if address else {"include_dashboard": False}
    if processes is not None:
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(processes))
    ray.init(
        address=address,
        logging_level=logging.WARNING,
        # Workers' chatter would break the progress display; their errors come as exceptions, and
        # everything they print is in Ray's own log folder.
        log_to_driver=os.environ.get("RAYPO_WORKER_LOGS") == "1",
        runtime_env={"worker_process_setup_hook": "raypo.orchestration.cluster.silence_logs"},
        **options,
    )


def this_node() -> NodeAffinitySchedulingStrategy:
    """Scheduling onto this machine alone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@contextmanager
def actor_here(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """An actor on this machine for the length of the block: its name, and its handle.

    Here, for it has to live as long as this driver, whichever other machine leaves.
    """
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    actor = ray.remote(num_cpus=0)(kind).options(name=name, scheduling_strategy=this_node())
    handle = actor.remote()
    try:
        yield name, handle
    finally:
        ray.kill(handle)


def fetch_everywhere(places: Sequence[Path]) -> None:
    """Fetch copies of URLs on every machine of the cluster, where a library reads paths itself."""
    urls = [uri(one) for one in places if url_of(one) is not None]
    if not urls:
        return
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    task = ray.remote(num_cpus=0)(_fetch_all)
    ray.get(
        [
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(urls)
            for node in nodes
        ]
    )


def _fetch_all(urls: Sequence[str]) -> None:
    for url in urls:
        fetch(local_path(url))


def silence_logs() -> None:
    """Silence, in this process, warnings of libraries that a user can do nothing about.

    Runs in every Ray worker as well as here. Errors are left alone.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables beside our progress
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # likewise its own files
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends a search like a run
    # A trial's last word is how it ended, not a metric.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)
    # Without a handler here, each module of ray.llm sets its own level, INFO, and prints.
    if not logging.getLogger("ray.llm").handlers:
        logging.getLogger("ray.llm").addHandler(logging.StreamHandler())
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")


_NOISY = {
    "ray.train": logging.WARNING,
    "ray.data": logging.WARNING,
    "ray.tune": logging.WARNING,
    # Misses the files of Tune's own loggers, which are off.
    "ray.tune.analysis.experiment_analysis": logging.ERROR,
    # Says on a machine with GPUs that trials hold none: their workers do.
    "ray.tune.tune": logging.ERROR,
    "ray.llm": logging.WARNING,
    "ray._private.worker": logging.WARNING,
    # Polls the dashboard's state API, which a local cluster goes without, every few seconds.
    "ray.train.v2._internal.execution.controller.placement_group_cleaner": logging.ERROR,
    # Says that a local cluster asks for a token, which Ray has made and passes on by itself.
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "DeepSpeed": logging.WARNING,
    "vllm": logging.WARNING,
    "vllm.triton_utils.importing": logging.ERROR,  # says on every CPU that it has no GPU kernels
}

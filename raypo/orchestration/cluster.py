"""Connecting to Ray without its log messages."""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypo.config.paths import local_path, uri, url_of
from raypo.io.remote import fetch
from raypo.orchestration.waiting import LIMIT_VARIABLE


def connect(processes: int | None = None) -> None:
    """Join a cluster, or start Ray on this machine; once per process.

    The cluster is that of RAY_ADDRESS, otherwise one that `ray start` runs on this machine.

    Args:
        processes: number of processes that the work needs at a time. Ray warns where there are
            more than it expects on a single machine.
    """
    if ray.is_initialized():
        return
    silence_logs()
    address = os.environ.get("RAY_ADDRESS")
    options = {} if address else {"include_dashboard": False}
    # Ray gives its workers the lowest priority but four. Beside other busy programs they would take
    # longer to start than Ray waits for them, and be started again without end.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if processes is not None:
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(processes))
    ray.init(
        address=address,
        logging_level=logging.WARNING,
        # Workers' output would break the progress display. Their errors arrive as exceptions, and
        # everything that they print is in Ray's log folder.
        log_to_driver=os.environ.get("RAYPO_WORKER_LOGS") == "1",
        runtime_env={
            "worker_process_setup_hook": "raypo.orchestration.cluster.silence_logs",
            # Trials wait for resources in processes of their own.
            "env_vars": {
                name: os.environ[name] for name in (LIMIT_VARIABLE,) if name in os.environ
            },
        },
        **options,
    )


def this_node() -> NodeAffinitySchedulingStrategy:
    """A scheduling strategy for this machine alone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@contextmanager
def actor_here(kind: type, prefix: str) -> Iterator[tuple[str, ActorHandle]]:
    """Run an actor on this machine, where it lives as long as this driver.

    Args:
        kind: class of the actor.
        prefix: start of its name.

    Yields:
        Name and handle of the actor, which ends with the block.
    """
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    actor = ray.remote(num_cpus=0)(kind).options(name=name, scheduling_strategy=this_node())
    handle = actor.remote()
    try:
        yield name, handle
    finally:
        ray.kill(handle)


def fetch_everywhere(paths: Sequence[Path]) -> None:
    """Fetch copies of URLs on every machine of the cluster, for libraries that read paths.

    Args:
        paths: copies to fetch; local paths are ignored.
    """
    urls = [uri(path) for path in paths if url_of(path) is not None]
    if not urls:
        return
    task = ray.remote(num_cpus=0)(_fetch_all)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    ray.get([task.options(scheduling_strategy=one).remote(urls) for one in strategies])


def _fetch_all(urls: Sequence[str]) -> None:
    for url in urls:
        fetch(local_path(url))


def silence_logs() -> None:
    """Silence, in this process, library warnings that a user can do nothing about.

    Runs in the driver and in every Ray worker. Errors are not silenced.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # no tables of Tune beside raypo's progress
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # no files of Tune's loggers
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the search
    # A trial's last report says how it ended, not a metric.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)
    # Without a handler, each module of ray.llm sets its level to INFO and prints.
    if not logging.getLogger("ray.llm").handlers:
        logging.getLogger("ray.llm").addHandler(logging.StreamHandler())
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")


_NOISY = {
    "ray.train": logging.WARNING,
    "ray.data": logging.WARNING,
    "ray.tune": logging.WARNING,
    # Warns that the files of Tune's loggers, which are off, are missing.
    "ray.tune.analysis.experiment_analysis": logging.ERROR,
    # Warns on machines with GPUs that trials hold none; their workers do.
    "ray.tune.tune": logging.ERROR,
    "ray.llm": logging.WARNING,
    "ray.serve": logging.WARNING,
    "ray._private.worker": logging.WARNING,
    # Polls the dashboard's state API, which a local cluster does not have, every few seconds.
    "ray.train.v2._internal.execution.controller.placement_group_cleaner": logging.ERROR,
    # Warns that a local cluster asks for a token, which Ray makes and passes on by itself.
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "DeepSpeed": logging.WARNING,
    "vllm": logging.WARNING,
    "vllm.triton_utils.importing": logging.ERROR,  # warns on CPUs about missing GPU kernels
}

"""What tests of several rooms share: inputs of training, and a Ray cluster.

Starting Ray takes every command some seconds. A test joins the shared cluster by
`pytest.mark.usefixtures("shared_ray")`, a module whose own fixtures connect to Ray by
"shared_ray_of_module". Tests keep a cluster of their own if they kill its processes, look for them
among the children of a command, or pass environment variables that workers need.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# A worker of several: Ray finds clusters by a file in its folder, and one must not join another's.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["RAY_TMPDIR"] = f"/tmp/raypo-{worker}"  # short: socket paths have 107 bytes
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Jobs in the background of a script ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing about behaviour, and a busy machine is slow.
settings.register_profile("raypo", deadline=None)
settings.load_profile("raypo")

# In a process of its own: a test that disconnects from Ray must not end the cluster.
CLUSTER = """
import os, sys
from ray._private.utils import get_ray_address_file
from ray.cluster_utils import Cluster
head = {"num_cpus": os.cpu_count(), "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
try:
    # Only RAY_ADDRESS leads here: Ray would join the cluster of this file by itself.
    os.unlink(get_ray_address_file(None))
    print("address", cluster.address, flush=True)
    sys.stdin.read()  # until the tests have ended, whichever way
finally:
    cluster.shutdown()
"""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A prepared data set, a recommender and an SFT adapter, which tests only read.

    Made once, by the worker that needs them first.
    """
    from tests.training.inputs import make_inputs  # imports torch

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if worker else own) / "inputs"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            make_inputs(folder)
    return folder / "data", folder / "recommender", folder / "sft" / "adapter"


class SharedCluster:
    """A cluster of one node, started when a test first needs it and again after `stop`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._address = ""

    def address(self) -> str:
        """The running cluster's address."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
                | {"RAY_worker_niceness": "0"},  # as `connect` starts Ray
            )
            self._address = self._read_address()
        return self._address

    def _read_address(self) -> str:
        assert self._process and self._process.stdout
        line = ""
        while not line.startswith("address "):
            line = self._process.stdout.readline()
            assert line, "Ray did not start"
        return line.split()[1]

    def stop(self) -> None:
        """End the cluster, if it runs."""
        if self._process is not None:
            self._process.communicate(timeout=60)  # closes its input
            self._process = None


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[SharedCluster]:
    """The cluster itself, for tests that need it stopped."""
    cluster = SharedCluster()
    yield cluster
    cluster.stop()


@contextmanager
def _joined(cluster: SharedCluster) -> Iterator[None]:
    """Let commands, and `connect()` in this process, join the cluster."""
    import ray

    ray.shutdown()  # from a cluster of tests before
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address())
        yield
    ray.shutdown()


@pytest.fixture
def shared_ray(shared_cluster: SharedCluster) -> Iterator[None]:
    """Join the shared cluster for one test."""
    with _joined(shared_cluster):
        yield


@pytest.fixture(scope="module")
def shared_ray_of_module(shared_cluster: SharedCluster) -> Iterator[None]:
    """Join the shared cluster for all tests and fixtures of a module."""
    with _joined(shared_cluster):
        yield

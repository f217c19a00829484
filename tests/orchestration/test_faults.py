"""Killed workers and drivers, and several machines: the losses stay the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raypo.io.run_folder import read_metrics
from tests.training.test_resume import without_timing

pytestmark = pytest.mark.slow
RAYPO = str(Path(sys.executable).with_name("raypo"))


def command(inputs, output, *more):
    data, recommender, adapter = inputs
    values = [
        f"recommender={recommender}", f"policy.adapter={adapter}", "objective.name=napo",
        "negatives=3", "max_rows=48", "micro_batch_size=2", "epochs=3", "policy.model=tiny-random",
        "policy.dtype=float32", "cluster.workers=2", "cluster.engine=torch",
        "validation.eval_steps=5", "validation.max_rows=8", "optimiser.learning_rate=1e-3",
    ]  # fmt: skip
    return [RAYPO, "align", f"data={data}", f"output={output}", *values, *more]


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """Metrics of a run without faults: 36 steps."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    answer = subprocess.run(command(inputs, output), capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return read_metrics(output)


def assert_same_metrics(one, other):
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for a, b in zip(one, other, strict=True):
        assert without_timing(b) == pytest.approx(without_timing(a), rel=1e-6, abs=1e-7)


def start(arguments):
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_step(process, output, step):
    until = time.monotonic() + 180
    while len(read_metrics(output)) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def workers_of(process):
    """Ray Train's worker processes under the driver."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()) or "RayTrainWorker" in child.name():
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_killed_worker_and_a_killed_driver_do_not_change_the_losses(
    inputs, tmp_path, undisturbed
):
    """Ray Train replaces the worker, and the same command resumes after the driver."""
    output = tmp_path / "run"
    process = start(command(inputs, output))
    wait_for_step(process, output, 8)
    workers = workers_of(process)
    assert workers
    workers[-1].kill()
    wait_for_step(process, output, 22)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(children, timeout=10)
    assert not (output / "summary.json").exists()
    again = subprocess.run(command(inputs, output), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert_same_metrics(undisturbed, read_metrics(output))


def test_two_machines_give_the_losses_of_one(inputs, tmp_path, undisturbed):
    """Two nodes of one core each, as processes of Ray's cluster utility."""
    script = """
import subprocess, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
try:
    sys.exit(subprocess.run(sys.argv[1:], env={**__import__("os").environ,
             "RAY_ADDRESS": cluster.address}).returncode)
finally:
    cluster.shutdown()
"""
    output = tmp_path / "run"
    answer = subprocess.run(
        [sys.executable, "-c", script, *command(inputs, output)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert answer.returncode == 0, answer.stderr
    assert_same_metrics(undisturbed, read_metrics(output))


def test_a_run_continues_when_a_machine_leaves(inputs, tmp_path, undisturbed):
    """Elastic training: one worker takes the users of both, and the losses stay the same."""
    script = """
import json, os, subprocess, sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
leaving = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
metrics = sys.argv[1] + "/metrics.jsonl"
# Seconds that Ray Train waits for the machine to come back; the default is a minute.
timeout = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
environment = {**os.environ, **timeout, "RAY_ADDRESS": cluster.address}
process = subprocess.Popen(sys.argv[2:], env=environment)
try:
    while process.poll() is None and not (
        os.path.exists(metrics) and len(open(metrics).readlines()) >= 12
    ):
        time.sleep(0.02)
    cluster.remove_node(leaving, allow_graceful=False)
    sys.exit(process.wait())
finally:
    process.kill()
    cluster.shutdown()
"""
    output = tmp_path / "run"
    arguments = command(inputs, output, "cluster.workers={min: 1, max: 2}")
    answer = subprocess.run(
        [sys.executable, "-c", script, str(output), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert answer.returncode == 0, answer.stderr
    metrics = read_metrics(output)
    # Sums in another order differ by rounding. At ten times the learning rate, where the loss jumps
    # from step to step, that grows to percents.
    values = [[line["loss"] for line in lines] for lines in (metrics, undisturbed)]
    # With one worker a step has two micro-batches instead of one on each of two workers.
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    workers = [line["workers"] for line in metrics]
    assert (workers[0], workers[-1]) == (2, 1) and workers.index(1) <= 15


def test_a_non_finite_loss_ends_in_a_message(inputs, tmp_path):
    output = tmp_path / "run"
    answer = subprocess.run(
        command(inputs, output, "optimiser.learning_rate=1e30", "optimiser.max_grad_norm=1e30"),
        capture_output=True,
        text=True,
        check=False,
    )
    message = " ".join(answer.stderr.split())
    assert answer.returncode == 1, answer.stderr
    assert "the loss is" in message and "the batch is in" in message
    assert "Traceback" not in message
    (file, *_) = output.glob("bad-batch-step-*-rank-*.json")
    assert len(json.loads(file.read_text())["users"]) == 2

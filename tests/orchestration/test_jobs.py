"""Jobs on a real cluster: head and worker are processes of their own, code travels to them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def agent_port() -> str:
    """Jobs go through a node's agent, whose usual port another cluster here may have."""
    return f"--dashboard-agent-listen-port={free_port()}"


def run(arguments, env, timeout=300):
    return subprocess.run(
        arguments, capture_output=True, text=True, env=env, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, shared_cluster):
    """A head without cores and one worker; the environment that reaches them."""
    # A second node on this machine would join the wrong cluster.
    ray.shutdown()
    shared_cluster.stop()
    # Short: Ray's sockets are in it, and their paths may have 107 characters.
    folder = Path("/tmp") / f"raypo-jobs-{os.getpid()}"
    port, dashboard = free_port(), free_port()
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 32,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    starting = {key: value for key, value in env.items() if key != "RAY_ADDRESS"}
    head = [
        RAY, "start", "--head", f"--port={port}", "--num-cpus=0", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--temp-dir={folder}", agent_port(), "--block",
    ]  # fmt: skip
    worker = [
        RAY, "start", f"--address=127.0.0.1:{port}", "--num-cpus=2", agent_port(), "--block",
    ]  # fmt: skip
    log = (tmp_path_factory.mktemp("cluster") / "log").open("w")
    processes = [subprocess.Popen(head, env=starting, stdout=log, stderr=log)]
    try:
        time.sleep(8)
        processes.append(subprocess.Popen(worker, env=starting, stdout=log, stderr=log))
        until = time.monotonic() + 90
        while run([RAY, "job", "list"], env).returncode != 0:
            assert time.monotonic() < until, Path(log.name).read_text()
            time.sleep(1)
        yield env
    finally:
        for process in processes:
            for running in [*psutil.Process(process.pid).children(recursive=True), process]:
                running.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def write_log(folder):
    folder.mkdir()
    items = "".join(f"{i}\tFilm {i}\n" for i in range(60))
    (folder / "a.item").write_text("item_id:token\tmovie_title:token_seq\n" + items)
    lines = "".join(
        f"{user}\t{(user * 5 + step) % 60}\t{step}\n" for step in range(12) for user in range(24)
    )
    (folder / "a.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + lines)


def submit(env, script, *arguments, more=()):
    command = [RAY, "job", "submit", "--working-dir", str(ROOT), *more, "--", "python", script]
    return run([*command, *arguments], env)


def test_a_stage_runs_where_the_cores_are_and_its_output_comes_back(cluster, tmp_path):
    write_log(tmp_path / "log")
    output = tmp_path / "prepared"
    answer = submit(
        cluster,
        "jobs/prepare.py",
        f"interactions={tmp_path}/log/a.inter",
        f"items={tmp_path}/log/a.item",
        f"output={output}",
        "workers=2",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "prepare: into" in answer.stdout
    assert json.loads((output / "dataset.json").read_text())["counts"]["users"] == 24
    trained = submit(
        cluster,
        "jobs/recommender.py",
        f"data={output}",
        f"output={tmp_path}/recommender",
        "launcher=ray",
        "max_epochs=2",
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert (tmp_path / "recommender" / "model.safetensors").exists()


def test_a_failing_job_says_why_and_exits_with_an_error(cluster, tmp_path):
    answer = submit(
        cluster, "jobs/prepare.py", "interactions=no.inter", "items=no.item", "output=o"
    )
    assert answer.returncode != 0
    assert "no.inter: no such file" in " ".join(answer.stdout.split())


def test_a_job_can_be_stopped(cluster):
    answer = run(
        [RAY, "job", "submit", "--no-wait", "--submission-id=long", "--", "sleep", "300"], cluster
    )
    assert answer.returncode == 0, answer.stderr
    stopped = run([RAY, "job", "stop", "long"], cluster)
    assert stopped.returncode == 0, stopped.stderr
    assert "was stopped" in run([RAY, "job", "status", "long"], cluster).stdout

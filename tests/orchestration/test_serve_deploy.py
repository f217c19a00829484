"""`serve deploy` takes serve/app.yaml, as docs/serving.md and KubeRay's RayService use it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.orchestration.test_serve import HISTORY, free_port, replicas

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROGRAMS = Path(sys.executable).parent
APP = Path(__file__).parents[2] / "serve" / "app.yaml"


def test_the_application_file_is_deployed(
    inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("deploy")
    config = yaml.safe_load(APP.read_text())
    (application,) = config["applications"]
    port, dashboard, head = free_port(), free_port(), free_port()
    config["http_options"]["port"] = port
    application["args"] |= {"runs": [str(inputs[2].parent)], "replicas": {"cpus": 1}}
    other = shutil.copytree(inputs[2], tmp_path / "other")
    file = tmp_path / "app.yaml"
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment = kept | {
        "RAY_TMPDIR": "/tmp/raypo-deploy",
        "RAY_ADDRESS": f"127.0.0.1:{head}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }

    def deploy() -> bool:
        file.write_text(yaml.safe_dump(config))
        address = f"http://127.0.0.1:{dashboard}"
        command = [PROGRAMS / "serve", "deploy", file, "-a", address]
        answer = subprocess.run(command, capture_output=True, check=False, env=environment)
        return answer.returncode == 0

    # It blocks, and ends its own cluster when it is ended: `ray stop` would end all others too.
    start = [
        PROGRAMS / "ray", "start", "--head", "--block", f"--port={head}", "--num-cpus=2",
        "--include-dashboard=true", f"--dashboard-port={dashboard}",
    ]  # fmt: skip
    cluster = subprocess.Popen(
        list(map(str, start)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(deploy)  # as soon as the dashboard answers
        wait_for(lambda: answers(f"{url}/ready"))
        # This run has no recommender: candidates are given.
        ask = {"history": HISTORY, "candidates": ["Film D3", "Film E4"]}
        answer = httpx.post(f"{url}/v1/rank", json=ask, timeout=60)
        assert answer.status_code == 200 and len(answer.json()["items"]) == 2
        before = {process.pid for process in replicas()}
        assert before
        adapters = {"sft": str(inputs[2]), "other": str(other)}
        application["deployments"] = [{"name": "replica", "user_config": {"adapters": adapters}}]
        wait_for(deploy)
        wait_for(lambda: models(url) == {"sft", "other"})
        assert {process.pid for process in replicas()} == before  # none was started again
    finally:
        cluster.terminate()
        cluster.wait(60)


def models(url: str) -> set[str]:
    return {one["id"] for one in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]}


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(1)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False

"""Serving on Ray Serve: over HTTP, with clients that people have, through failures and updates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from raypo.config import ServeConfig, parse_config
from tests.orchestration.processes import started

# Deprecations within Ray Serve and the client, whose modules are imported in tests for that reason.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

HISTORY = ["Film A0", "Film B1", "Film C2"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def server(*arguments: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`raypo serve` as a user starts it; ended by Ctrl-C."""
    port = free_port()
    program = Path(sys.executable).with_name("raypo")
    command = [program, "serve", *map(str, arguments), f"port={port}"]
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=kept | environment)
    try:
        assert process.stderr is not None
        line = ""
        while not line.startswith("serving "):
            line = process.stderr.readline()
            assert line, "the server did not start"
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def runs(inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SFT run, with a recommender to retrieve."""
    _, recommender, adapter = inputs
    folder = tmp_path_factory.mktemp("served") / "sft"
    shutil.copytree(adapter.parent, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"recommender": str(recommender)}))
    return folder


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    settings = ["limits.queued=4", "replicas.least=2", "replicas.most=2", "replicas.cpus=0.5"]
    with server(runs, *settings, "batching.users=4") as (url, _):
        yield url


def recommend(client: httpx.Client, url: str, **changes: object) -> httpx.Response:
    return client.post(f"{url}/v1/recommend", json={"history": HISTORY, "k": 3} | changes)


def test_a_request_is_answered_by_every_model(url: str) -> None:
    with httpx.Client(timeout=60) as client:
        models = [one["id"] for one in client.get(f"{url}/v1/models").json()["data"]]
        assert models == ["base", "sft", "recommender"]
        for model in models:
            body = recommend(client, url, model=model).json()
            assert body["model"] == model and len(body["items"]) == 3
        assert client.get(f"{url}/openapi.json").json()["info"]["title"] == "raypo"
        assert "<title>raypo</title>" in client.get(url).text


def test_a_published_client_of_rerank_services_works(url: str) -> None:
    import cohere

    documents = ["Film D3", "Film E4", "Film F5"]
    with httpx.Client(timeout=60) as connection:
        client = cohere.Client("any", base_url=url, httpx_client=connection)
        answer = client.rerank(model="sft", query="\n".join(HISTORY), documents=documents, top_n=2)
    assert len(answer.results) == 2
    ranked = httpx.post(
        f"{url}/v1/rank", json={"history": HISTORY, "candidates": documents}, timeout=60
    ).json()["items"]
    assert [documents[one.index] for one in answer.results] == [one["title"] for one in ranked[:2]]


async def _flood(url: str, count: int) -> list[httpx.Response | Exception]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        ask = {"history": HISTORY, "k": 3}
        posts = [client.post(f"{url}/v1/recommend", json=ask) for _ in range(count)]
        return await asyncio.gather(*posts, return_exceptions=True)


def test_too_many_requests_are_refused_with_a_time_to_try_again(url: str) -> None:
    answers = asyncio.run(_flood(url, 150))
    assert not [one for one in answers if isinstance(one, Exception)]
    counts = Counter(one.status_code for one in answers)
    assert set(counts) == {200, 503} and counts[200] >= 12
    refused = next(one for one in answers if one.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["title"] == "Too busy"


def replicas() -> list[psutil.Process]:
    return started("ServeReplica:raypo:replica")


def test_requests_survive_the_death_of_a_replica(url: str) -> None:
    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            ask = {"history": HISTORY, "k": 3}
            answers = []
            for number in range(6):
                posts = [client.post(f"{url}/v1/recommend", json=ask) for _ in range(6)]
                pending = asyncio.gather(*posts)
                if number == 2:
                    await asyncio.sleep(0.05)
                    replicas()[0].kill()
                answers += await pending
            return answers

    assert len(replicas()) == 2
    answers = asyncio.run(run())
    counts = Counter(one.status_code for one in answers)
    assert counts[200] + counts[503] == 36  # a queue of four is full for a moment
    assert counts[200] >= 24
    deadline = time.monotonic() + 90
    while len(replicas()) < 2:  # Ray Serve starts another one
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.mark.usefixtures("shared_ray")
def test_adapters_change_and_replicas_come_and_go(runs: Path, tmp_path: Path) -> None:
    from raypo.orchestration.serve import start, stop

    of_others = replicas()  # of the module's server, if it runs

    def own() -> list[psutil.Process]:
        return [one for one in replicas() if one not in of_others]

    other = shutil.copytree(runs, tmp_path / "other")
    broken = shutil.copytree(runs, tmp_path / "broken")
    (broken / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def bring_up(*folders: Path) -> None:
        sizes = {"most": 2, "cpus": 0.5, "target_ongoing": 1}
        delays = {"upscale_delay_s": 0.5, "downscale_delay_s": 2}
        values = {"runs": folders, "port": port, "replicas": sizes | delays}
        start(parse_config(ServeConfig, values, "test"))

    def models() -> dict:
        return httpx.get(f"{url}/v1/models", timeout=60).json()

    try:
        bring_up(runs)
        assert len(own()) == 1
        bring_up(runs, other, broken)
        deadline = time.monotonic() + 60
        while not (found := models())["refused"]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert [one["id"] for one in found["data"]] == ["base", "sft", "other", "recommender"]
        assert [one["id"] for one in found["refused"]] == ["broken"]
        counts = set()
        deadline = time.monotonic() + 120
        while 2 not in counts:  # as long as requests wait, a second replica is started
            assert time.monotonic() < deadline
            asyncio.run(_flood(url, 24))
            counts.add(len(own()))
        while len(own()) > 1:  # and ended when none do
            assert time.monotonic() < deadline
            time.sleep(1)
        assert counts == {1, 2}
    finally:
        stop()


def test_strangers_are_kept_out(runs: Path) -> None:
    with server(runs, "replicas.cpus=0.5", RAYPO_TOKEN="s3cret") as (url, process):
        ask = {"history": HISTORY, "k": 3}
        assert httpx.post(f"{url}/v1/recommend", json=ask).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        answer = httpx.post(f"{url}/v1/recommend", json=ask, headers=headers, timeout=60)
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert "Film" not in process.stderr.read()

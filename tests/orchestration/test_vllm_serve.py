"""Adapters behind vLLM's server, as docs/serving.md starts it, answer as `raypo evaluate` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest

from raypo.assets import resolve_model
from tests.orchestration.test_generate import strong_adapter
from tests.orchestration.test_serve import free_port

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROGRAMS = Path(sys.executable).parent
ROWS = 4


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "adapter"
    strong_adapter(folder, resolve_model("tiny-random"), seed=0)
    return folder


def raypo(*arguments: object) -> str:
    command = [PROGRAMS / "raypo", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def wait_for(url: str, process: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)


@pytest.mark.usefixtures("shared_ray")
def test_vllm_serve_gives_the_answers_of_an_evaluation(
    inputs: tuple[Path, Path, Path], adapter: Path, tmp_path: Path
) -> None:
    data = inputs[0]
    policy = ["policy.model=tiny-random", "policy.dtype=float32", f"policy.adapter={adapter}"]
    rows = [f"data={data}", f"max_rows={ROWS}", *policy]
    raypo("evaluate", *rows, f"output={tmp_path}/evaluated", "answers=[generate]")
    predictions = pd.read_parquet(tmp_path / "evaluated" / "predictions.parquet")
    asked = [json.loads(line) for line in raypo("prompts", *rows).splitlines()]
    assert [one["row"] for one in asked] == predictions["row"].tolist()
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", resolve_model("tiny-random"), "--enable-lora", "--max-lora-rank", "16",
        "--lora-modules", f"aligned={adapter}", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager",
    ]  # fmt: skip
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, 180)
        for one, expected in zip(asked, predictions["answer"], strict=True):
            ask = {"prompt": one["prompt_token_ids"], "max_tokens": 24, "temperature": 0}
            texts = {}
            for model in ("aligned", str(resolve_model("tiny-random"))):
                body = httpx.post(
                    f"{url}/v1/completions", json=ask | {"model": model}, timeout=60
                ).json()
                texts[model] = body["choices"][0]["text"].strip().split("\n")[0].strip()
            assert texts["aligned"] == expected
            assert len(set(texts.values())) == 2  # otherwise the test could not fail
    finally:
        process.terminate()
        process.wait(60)

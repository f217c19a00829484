"""Interrupted evaluations resume; recommenders train alike with and without Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.orchestration.movielens import prepare_slice

pytestmark = pytest.mark.slow
RAYPO = str(Path(sys.executable).with_name("raypo"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_slice(tmp_path_factory.mktemp("data") / "prepared", maximum_rows=3000)


def test_a_recommender_trained_on_a_ray_worker_is_the_one_trained_here(data, tmp_path):
    for launcher in ("local", "ray"):
        answer = subprocess.run(
            [
                RAYPO, "recommender", "train", f"data={data}", f"output={tmp_path / launcher}",
                "kind=gru4rec", "max_epochs=2", "hidden=16", f"launcher={launcher}",
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
    files = {file.name for file in (tmp_path / "ray").iterdir()}
    assert files == {file.name for file in (tmp_path / "local").iterdir()}
    for name in ("summary.json", "metrics.jsonl"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "local" / name).read_text()


def command(data: Path, output: Path) -> list[str]:
    return [
        RAYPO, "evaluate", f"data={data}", f"output={output}", "policy.model=tiny-random",
        "policy.dtype=float32", "max_rows=160", "num_permutations=2", "answers=[likelihood]",
        "scorer.workers=1", "scorer.batch_size=2",
    ]  # fmt: skip


@pytest.mark.usefixtures("shared_ray")
def test_a_killed_evaluation_resumes_and_ends_like_another(data, tmp_path):
    whole = subprocess.run(
        command(data, tmp_path / "whole"), capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr
    assert " INFO " not in whole.stderr and "WARNING" not in whole.stderr
    partial = tmp_path / "killed" / "partial" / "likelihood.jsonl"
    process = subprocess.Popen(
        command(data, tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 30):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines = partial.read_bytes().count(b"\n")
    assert 30 <= lines < 480
    again = subprocess.run(
        command(data, tmp_path / "killed"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert not partial.exists()
    about = json.loads((tmp_path / "killed" / "evaluated.json").read_text())
    assert f"evaluate: {lines}/480, " in again.stderr  # where it resumes
    assert about["cost"]["likelihood"]["answers"] == 480
    frames = [
        pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("whole", "killed")
    ]
    for column in ("row", "target"):
        assert frames[0][column].tolist() == frames[1][column].tolist()
    for one, other in zip(frames[0]["logps"], frames[1]["logps"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert about["length_normalised"] is False
    metrics = json.loads((tmp_path / "killed" / "metrics.json").read_text())["likelihood"]
    assert len(metrics["permutations"]["HitRatio@1"]) == 2
    assert metrics["n"] == 160

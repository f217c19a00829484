"""Faults end in a clear message, and finished work is kept."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raypo.config import SftConfig, parse_config
from raypo.errors import InputError, StoppedRun
from raypo.io.run_folder import read_metrics
from raypo.training import negatives_and_reference
from raypo.training.engine import TorchEngine
from raypo.training.local import train_locally
from raypo.training.tracking import check_mlflow

from .inputs import settings
from .test_resume import Interrupted, interrupt_at, without_timing

pytestmark = pytest.mark.slow
RAYPO = str(Path(sys.executable).with_name("raypo"))


def config(data, output):
    return parse_config(SftConfig, settings(data, output), "test")


def test_a_non_finite_loss_stops_the_run_and_keeps_the_batch(inputs, tmp_path, monkeypatch):
    data, _, _ = inputs
    with (
        poisoned(monkeypatch, lambda logps: logps * torch.tensor(float("nan"))),
        pytest.raises(StoppedRun, match="step 6: the loss is nan; the batch is in") as error,
    ):
        train_locally(config(data, tmp_path / "run"))
    file = tmp_path / "run" / "bad-batch-step-00000006-rank-0.json"
    assert str(file) in str(error.value)
    batch = json.loads(file.read_text())
    assert batch["step"] == 6 and len(batch["users"]) == 4
    assert batch["users"][0]["chosen"].startswith("Film ")
    assert batch["users"][0]["logps"] == ["nan"]
    assert len(read_metrics(tmp_path / "run")) == 5
    # No step was taken with it: without the poison the run resumes from the last checkpoint.
    train_locally(config(data, tmp_path / "run"))
    train_locally(config(data, tmp_path / "other"))
    runs = [read_metrics(tmp_path / name) for name in ("run", "other")]
    for one, other in zip(*runs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)


@contextlib.contextmanager
def poisoned(monkeypatch, change):
    """In the block, `change` is applied to the log-probs of the sixth step."""
    calls, original = [], TorchEngine.logps

    def logps(engine, packed):
        result = original(engine, packed)
        if engine.policy.training:
            calls.append(packed)
        return change(result) if engine.policy.training and len(calls) == 6 else result

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "logps", logps)
        yield


def infinite_gradient(logps):
    """The same log-probs, whose gradient is infinite."""
    if logps.requires_grad:
        logps.register_hook(lambda gradient: gradient * float("inf"))
    return logps


def test_no_step_is_taken_with_a_gradient_that_is_not_finite(inputs, tmp_path, monkeypatch):
    data, _, _ = inputs
    with (
        poisoned(monkeypatch, infinite_gradient),
        pytest.raises(StoppedRun, match=r"step 6: the gradient norm is (inf|nan); the batch"),
    ):
        train_locally(config(data, tmp_path / "run"))
    file = tmp_path / "run" / "bad-batch-step-00000006-rank-0.json"
    assert len(json.loads(file.read_text())["users"]) == 4
    assert len(read_metrics(tmp_path / "run")) == 5


@pytest.mark.parametrize("damage", ["truncated", "missing", "not json"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(inputs, tmp_path, damage, caplog):
    data, _, _ = inputs
    with pytest.raises(Interrupted):
        train_locally(config(data, tmp_path / "run"), interrupt_at(10))
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    if len(checkpoints) == 1:  # the best is the last
        pytest.fail("the test needs two checkpoints")
    last = checkpoints[-1]
    if damage == "truncated":
        file = last / "optimiser.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "missing":
        (last / "adapter" / "adapter_model.safetensors").unlink()
    else:
        (last / "state.json").write_text("{")
    train_locally(config(data, tmp_path / "run"))
    (warning,) = [record for record in caplog.records if record.name == "raypo"]
    message = " ".join(warning.getMessage().split())
    assert warning.levelname == "WARNING" and "damaged checkpoint" in message
    assert last.name in message and checkpoints[0].name in message
    train_locally(config(data, tmp_path / "whole"))
    lines = [read_metrics(tmp_path / name) for name in ("run", "whole")]
    for one, other in zip(*lines, strict=True):
        assert without_timing(other) == pytest.approx(without_timing(one), rel=1e-6)


def test_the_command_shows_the_warning_of_a_damaged_checkpoint(inputs, tmp_path):
    data, _, _ = inputs
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_locally(config(data, run), interrupt_at(10))
    last = max((run / "checkpoints").iterdir())
    (last / "state.json").unlink()
    answer = subprocess.run(
        [RAYPO, "sft", "--config", run / "config.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    message = " ".join(answer.stderr.split())
    assert "damaged checkpoint" in message and last.name in message


def command(data, output):
    values = [
        "max_rows=24", "micro_batch_size=4", "epochs=2", "policy.model=tiny-random",
        "policy.dtype=float32", "cluster.workers=1", "cluster.launcher=local",
        "cluster.engine=torch", "validation.eval_steps=4", "validation.max_rows=8",
    ]  # fmt: skip
    return [RAYPO, "sft", f"data={data}", f"output={output}", *values]


def test_a_full_disk_and_an_impossible_folder_are_reported(inputs, tmp_path):
    data, _, _ = inputs
    run = tmp_path / "run"

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    full = subprocess.run(
        command(data, run),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_file_size,
    )
    output = " ".join(full.stderr.split())
    assert full.returncode == 1 and "File too large" in output, full.stderr
    assert "what was finished is kept" in output and "Traceback" not in output
    assert len(read_metrics(run)) >= 4
    again = subprocess.run(command(data, run), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert [line["step"] for line in read_metrics(run)] == list(range(1, 13))
    (tmp_path / "file").touch()
    nowhere = subprocess.run(
        command(data, tmp_path / "file" / "run"), capture_output=True, text=True, check=False
    )
    output = " ".join(nowhere.stderr.split())
    assert nowhere.returncode == 2 and "Traceback" not in output
    assert "file/run: no folder can be made there (Not a directory)" in output
    assert "kept" not in output


def test_no_secret_reaches_a_run_folder_or_the_output(inputs, tmp_path):
    data, _, _ = inputs
    secret = "wJalrXUtnFEMI-secret"
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY")
    answer = subprocess.run(
        command(data, tmp_path / "run"),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | dict.fromkeys(names, secret),
    )
    assert answer.returncode == 0, answer.stderr
    assert secret not in answer.stdout + answer.stderr
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file
    with pytest.raises(InputError, match="holds a password"):
        check_mlflow("https://user:secret@mlflow.example/")


def test_checkpoints_hold_nothing_pickled(inputs, tmp_path):
    data, _, _ = inputs
    train_locally(config(data, tmp_path / "run"))
    kinds = {
        file.suffix for file in (tmp_path / "run" / "checkpoints").rglob("*") if file.is_file()
    }
    assert kinds <= {".safetensors", ".json", ".md"}


@pytest.fixture(autouse=True)
def cached_references(tmp_path, monkeypatch):
    monkeypatch.setattr(negatives_and_reference, "cache_folder", lambda: tmp_path / "cache")


def test_the_local_launcher_runs_deepspeed_alone(inputs, tmp_path):
    data, _, _ = inputs
    values = [
        f"data={data}", f"output={tmp_path / 'run'}", "max_rows=8", "policy.model=tiny-random",
        "cluster.workers=1", "cluster.launcher=local", "cluster.engine=deepspeed",
        "validation.max_rows=4",
    ]  # fmt: skip
    answer = subprocess.run([RAYPO, "sft", *values], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
    assert "Warning" not in answer.stderr and "WARNING" not in answer.stderr

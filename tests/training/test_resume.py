"""A resumed run writes the metrics of one that was never interrupted."""

import json
import shutil
import struct

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from tensorboardX.proto import event_pb2

from raypo.config import AlignConfig, SftConfig, parse_config
from raypo.io.run_folder import read_metrics
from raypo.training import negatives_and_reference
from raypo.training.local import train_locally
from raypo.training.step_timer import PHASES

from .inputs import settings

pytestmark = pytest.mark.slow


class Interrupted(Exception):
    """An interruption between two steps."""


def interrupt_at(step):
    def progress(done, total, note=""):
        if done == step and "reference" not in note:
            raise Interrupted

    return progress


@pytest.fixture(autouse=True)
def cached_references(tmp_path, monkeypatch):
    """A cache folder of reference log-probs for each test."""
    monkeypatch.setattr(negatives_and_reference, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "reference"


def without_timing(line):
    """A line of metrics without what differs between equal runs."""
    measured = ("seconds", "tokens_per_second", "peak_memory_gib")
    return {k: v for k, v in line.items() if k not in measured and not k.startswith("time/")}


def scalars(folder):
    """(step, tag) -> value of every TensorBoard file, the last one written."""
    found = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        content = file.read_bytes()
        while content:  # length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                found[event.step, value.tag] = value.simple_value
            content = content[16 + length :]
    return found


@pytest.mark.parametrize(
    ("objective", "reference", "changes"),
    [
        ("napo", "precomputed", {}),
        ("napo", "precomputed", {"micro_batch_size": 2, "gradient_accumulation_steps": 2}),
        ("s-dpo", "precomputed", {}),
        ("s-dpo", "on-the-fly", {}),
        ("s-dpo", "on-the-fly", {"dropout": 0.2}),
    ],
)
def test_a_resumed_alignment_has_the_metrics_of_a_whole_one(
    inputs, tmp_path, objective, reference, changes
):
    data, recommender, adapter = inputs
    sizes = {key: value for key, value in changes.items() if key != "dropout"}
    dropout = changes.get("dropout", 0.0)

    def config(name):
        values = settings(data, tmp_path / name)
        values["policy"] = values["policy"] | {"adapter": adapter_of(adapter, tmp_path, dropout)}
        values |= {"recommender": recommender, "objective": {"name": objective}, "negatives": 3}
        values |= sizes | {"reference": reference}
        return parse_config(AlignConfig, values, "test")

    train_locally(config("whole"))
    with pytest.raises(Interrupted):
        train_locally(config("stopped"), interrupt_at(6))
    assert len(read_metrics(tmp_path / "stopped")) == 6
    train_locally(config("stopped"))

    whole, resumed = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "stopped")
    assert [line["step"] for line in resumed] == list(range(1, 13))
    for one, other in zip(whole, resumed, strict=True):
        assert without_timing(other) == pytest.approx(without_timing(one), rel=1e-6)
    if objective == "s-dpo" and not dropout:
        # The reference is the policy that alignment starts from: the first reward margins are 0.
        assert whole[0]["loss"] == pytest.approx(np.log(4), rel=1e-4)
        assert whole[-1]["loss"] != pytest.approx(np.log(4), rel=1e-4)


def adapter_of(adapter, folder, dropout):
    """The adapter, or a copy of it that trains with LoRA dropout."""
    if not dropout:
        return adapter
    copy = folder / "with-dropout"
    if not copy.exists():
        shutil.copytree(adapter, copy)
        file = copy / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_dropout": dropout}))
    return copy


def test_both_reference_modes_give_the_same_numbers_and_precomputed_ones_are_reused(
    inputs, tmp_path, cached_references
):
    data, recommender, adapter = inputs
    losses = {}
    for name, reference in (
        ("computed", "precomputed"),
        ("reused", "precomputed"),
        ("frozen", "on-the-fly"),
    ):
        values = settings(data, tmp_path / name) | {"recommender": recommender, "negatives": 3}
        values["policy"] = values["policy"] | {"adapter": adapter_of(adapter, tmp_path, 0.2)}
        values |= {"objective": {"name": "s-dpo+ns"}, "reference": reference}
        notes = []
        train_locally(
            parse_config(AlignConfig, values, "test"),
            lambda done, total, note="", notes=notes: notes.append(note),
        )
        losses[name] = [line["loss"] for line in read_metrics(tmp_path / name)]
        assert ("reference log-probs" in notes) == (name == "computed")
    assert len(list(cached_references.iterdir())) == 1
    assert losses["reused"] == losses["computed"]
    assert losses["frozen"] == pytest.approx(losses["computed"], rel=1e-6)


@pytest.mark.filterwarnings("ignore")  # MLflow's own, about its file store
def test_tensorboard_and_mlflow_show_what_the_metrics_hold(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    data, _, _ = inputs
    uri = f"file://{tmp_path}/mlruns"
    config = parse_config(SftConfig, settings(data, tmp_path / "run") | {"mlflow": uri}, "test")
    with pytest.raises(Interrupted):
        train_locally(config, interrupt_at(6))
    train_locally(config)
    lines = read_metrics(tmp_path / "run")
    shown = scalars(tmp_path / "run")
    assert {step for step, _ in shown} >= set(range(1, 13))
    for line in lines:
        assert shown[line["step"], "loss"] == pytest.approx(line["loss"], rel=1e-6)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("raypo").experiment_id])
    assert run.info.status == "FINISHED"
    history = {
        point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")
    }
    assert history == pytest.approx({line["step"]: line["loss"] for line in lines})


def test_every_step_reports_the_time_of_its_phases(inputs, tmp_path):
    data, _, _ = inputs
    values = settings(data, tmp_path / "run") | {"token_budget": 300}
    train_locally(parse_config(SftConfig, values, "test"))
    for line in read_metrics(tmp_path / "run"):
        shares = [line[f"time/{phase}"] for phase in PHASES]
        assert min(shares) >= 0 and 0.8 < sum(shares) <= 1
        assert 0 <= line["padding_share"] < 1
        assert line["prompts_cut"] == 0


def test_the_best_and_the_last_checkpoint_are_kept(inputs, tmp_path):
    data, _, _ = inputs
    config = parse_config(SftConfig, settings(data, tmp_path / "run"), "test")
    summary = train_locally(config)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert set(kept) == {"step-00000012", f"step-{summary['best_step']:08}"}
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()

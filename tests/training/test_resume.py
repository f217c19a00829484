"""An interrupted run, taken up again, writes the metrics of one that was never interrupted."""

import numpy as np
import pytest

from raypo.config import (
    AlignConfig,
    PrepareConfig,
    RecommenderConfig,
    SftConfig,
    parse_config,
)
from raypo.data.prepare import prepare
from raypo.recommenders.train import train_recommender
from raypo.runs import read_metrics
from raypo.training.local import train_locally

pytestmark = pytest.mark.slow


class Interrupted(Exception):
    """Stands for whatever stops a process between two steps."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A prepared data set, a recommender and an SFT adapter."""
    folder = tmp_path_factory.mktemp("inputs")
    generator = np.random.default_rng(0)
    items = "\n".join(f"{i}\tFilm {chr(65 + i % 26)}{i}" for i in range(60))
    (folder / "a.item").write_text("item_id:token\tmovie_title:token_seq\n" + items + "\n")
    lines = [
        f"{user}\t{item}\t{time}"
        for time, step in enumerate(range(12))
        for user in range(24)
        for item in [(user * 5 + step + int(generator.integers(2))) % 60]
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "a.inter").write_text(header + "\n".join(lines) + "\n")
    data = folder / "data"
    prepare(PrepareConfig(interactions=folder / "a.inter", items=folder / "a.item", output=data))
    recommender = folder / "recommender"
    train_recommender(RecommenderConfig(data=data, output=recommender, max_epochs=2))
    sft = parse_config(SftConfig, settings(data, folder / "sft"), "test")
    train_locally(sft)
    return data, recommender, folder / "sft" / "adapter"


def settings(data, output):
    return {
        "data": data,
        "output": output,
        "rows": 24,
        "micro_batch": 4,
        "epochs": 2,
        "policy": {"model": "tiny-random", "dtype": "float32", "lora": {"rank": 4}},
        "cluster": {"workers": 1, "launcher": "local", "engine": "torch"},
        "validation": {"every": 4, "rows": 8},
        "optimiser": {"learning_rate": 1e-2},
    }


def stopping_at(step):
    def progress(done, total, note=""):
        if done == step and "reference" not in note:
            raise Interrupted

    return progress


@pytest.mark.parametrize("objective", ["napo", "s-dpo"])
def test_alignment_goes_on_as_if_it_had_not_stopped(inputs, tmp_path, objective):
    data, recommender, adapter = inputs

    def config(name):
        values = settings(data, tmp_path / name)
        values["policy"] = values["policy"] | {"adapter": adapter}
        values |= {"recommender": recommender, "objective": {"name": objective}, "negatives": 3}
        return parse_config(AlignConfig, values, "test")

    train_locally(config("whole"))
    with pytest.raises(Interrupted):
        train_locally(config("stopped"), stopping_at(6))
    assert len(read_metrics(tmp_path / "stopped")) == 6
    train_locally(config("stopped"))

    whole, resumed = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "stopped")
    assert [line["step"] for line in resumed] == list(range(1, 13))
    for one, other in zip(whole, resumed, strict=True):
        kept = {key for key in one if key not in ("seconds", "tokens_per_second")}
        assert {key: other[key] for key in kept} == pytest.approx(
            {key: one[key] for key in kept}, rel=1e-6
        )
    if objective == "s-dpo":
        # The reference is the policy that alignment started from, so the first gap is nought.
        assert whole[0]["loss"] == pytest.approx(np.log(4), rel=1e-4)
        assert whole[-1]["loss"] != pytest.approx(np.log(4), rel=1e-4)


def test_the_best_and_the_last_checkpoint_are_kept(inputs, tmp_path):
    data, _, _ = inputs
    config = parse_config(SftConfig, settings(data, tmp_path / "run"), "test")
    summary = train_locally(config)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert set(kept) == {"step-00000012", f"step-{summary['best_step']:08}"}
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()

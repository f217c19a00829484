"""Training with hints: rows out of fold, what the adapter keeps of its prompts, resuming."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raypo.config import AlignConfig, RecommenderConfig, SftConfig, parse_config
from raypo.data.dataset import load_dataset
from raypo.data.prepare import prepare
from raypo.errors import InputError
from raypo.io.progress import no_progress
from raypo.io.run_folder import read_metrics
from raypo.recommenders.train import train_recommender
from raypo.training import negatives_and_reference
from raypo.training.job import build_job, check_inputs
from raypo.training.local import train_locally
from raypo.training.schedule import reads_vectors

from .inputs import log_config, settings
from .test_resume import Interrupted, interrupt_at, without_timing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    data = folder / "data"
    prepare(log_config(folder, data))
    recommender = folder / "recommender"
    folds = {"by": "time", "share": 0.5}
    train_recommender(
        RecommenderConfig(data=data, output=recommender, max_epochs=2, hidden=8, folds=folds)
    )
    return data, recommender


def sft_config(inputs, output, hints, **changes):
    data, recommender = inputs
    values = settings(data, output)
    values["policy"] = values["policy"] | {"hints": hints, "hints_recommender": str(recommender)}
    return parse_config(SftConfig, values | changes, "test")


def align_config(inputs, output, adapter, **changes):
    data, recommender = inputs
    values = settings(data, output)
    values["policy"] = values["policy"] | {"adapter": adapter}
    objective = {"name": "s-dpo"}
    return parse_config(
        AlignConfig, values | {"objective": objective, "recommender": recommender} | changes, "test"
    )


def test_only_rows_that_the_recommender_has_not_seen_are_trained_on(inputs, tmp_path) -> None:
    found = check_inputs(sft_config(inputs, tmp_path / "sft", "rank"))
    times = load_dataset(inputs[0]).train["timestamp"].to_numpy()
    rows = np.asarray(found.sampler.rows[np.arange(len(found.sampler.rows))])
    assert len(rows) == 24
    assert times[rows].min() > np.sort(times)[len(times) // 2 - 1]


@pytest.mark.parametrize("hints", ["rank", "order", "vector"])
def test_the_adapter_keeps_its_prompts_and_alignment_goes_on_with_them(
    inputs, tmp_path, hints, monkeypatch
) -> None:
    monkeypatch.setattr(negatives_and_reference, "cache_folder", lambda: tmp_path / "cache")
    train_locally(sft_config(inputs, tmp_path / "sft", hints))
    adapter = tmp_path / "sft/adapter"
    record = json.loads((adapter / "prompt.json").read_text())
    assert record["hints"] == hints
    assert record["hints_recommender"] == [str(inputs[1])]
    assert (adapter / "projector.safetensors").exists() == (hints == "vector")
    aligned = tmp_path / "align"
    train_locally(align_config(inputs, aligned, adapter))
    assert json.loads((aligned / "adapter/prompt.json").read_text()) == record
    first = read_metrics(aligned)[0]
    # Before the first step the policy is the reference, projector included.
    assert first["loss"] == pytest.approx(np.log(4), abs=1e-4)  # S-DPO with 3 negatives
    if hints == "vector":
        before, after = (
            load_file(folder / "projector.safetensors") for folder in (adapter, aligned / "adapter")
        )
        assert all(not torch.equal(before[name], after[name]) for name in before)


def test_an_interrupted_run_with_a_projector_goes_on_exactly(inputs, tmp_path) -> None:
    whole = sft_config(inputs, tmp_path / "whole", "vector")
    train_locally(whole)
    parted = sft_config(inputs, tmp_path / "parted", "vector")
    with pytest.raises(Interrupted):
        train_locally(parted, interrupt_at(6))
    train_locally(parted)
    lines = [[without_timing(line) for line in read_metrics(c.output)] for c in (whole, parted)]
    assert lines[0] == lines[1]
    for name in ("projector.safetensors", "adapter_model.safetensors"):
        expected = load_file(whole.output / "adapter" / name)
        for key, value in load_file(parted.output / "adapter" / name).items():
            assert torch.equal(value, expected[key]), key


def test_an_adapter_with_other_features_is_refused(inputs, tmp_path) -> None:
    train_locally(sft_config(inputs, tmp_path / "sft", "vector"))
    adapter = tmp_path / "sft/adapter"
    record = json.loads((adapter / "prompt.json").read_text())
    changed = record | {"hint_features": ["score"]}
    (adapter / "prompt.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"its projector takes 11 features .* give 2"):
        train_locally(align_config(inputs, tmp_path / "align", adapter))


def test_a_curriculum_reads_vectors_with_a_rising_probability_and_is_reproducible(
    inputs, tmp_path
) -> None:
    reads = [reads_vectors("linear", step, 400, seed=3) for step in range(400)]
    assert not reads[0]
    shares = np.array(reads).reshape(4, 100).mean(axis=1)
    assert np.allclose(shares, [0.125, 0.375, 0.625, 0.875], atol=0.15)
    assert all(reads_vectors("none", step, 400, seed=3) for step in range(400))
    results = []
    for name in ("one", "other"):
        config = sft_config(inputs, tmp_path / name, "vector", curriculum="linear")
        train_locally(config)
        results.append([line["loss"] for line in read_metrics(config.output)])
    assert results[0] == results[1]


def test_a_curriculum_without_vectors_is_refused(inputs, tmp_path) -> None:
    config = sft_config(inputs, tmp_path / "sft", "rank", curriculum="linear")
    with pytest.raises(InputError, match="curriculum: is of vector hints"):
        check_inputs(config)


@pytest.mark.parametrize("hints", ["rank", "order", "vector"])
def test_hints_are_left_out_of_a_share_of_the_rows(inputs, tmp_path, hints) -> None:
    found = build_job(
        sft_config(inputs, tmp_path / "sft", hints, hint_dropout=0.5), 0, no_progress
    ).make_batch
    plain = replace(found, hint_dropout=0.0)
    rows = np.flatnonzero(found.folds >= 0)[:40].tolist()
    hidden = 0
    for row in rows:
        own, full = found(0, [row]).packed, plain(0, [row]).packed
        if own.tokens.shape == full.tokens.shape and torch.equal(own.tokens, full.tokens):
            is_hidden = hints == "vector" and own.marker_columns.numel() == 0
        else:
            is_hidden = True
        hidden += is_hidden
        again = found(0, [row]).packed
        assert torch.equal(again.tokens, own.tokens)
    assert 8 < hidden < 32


def test_hints_are_left_out_of_a_share_of_the_candidates(inputs, tmp_path) -> None:
    settings = {"hint_dropout": 0.25, "hint_item_dropout": 0.5}
    found = build_job(
        sft_config(inputs, tmp_path / "sft", "rank", **settings), 0, no_progress
    ).make_batch
    rows = np.flatnonzero(found.folds >= 0)[:40].tolist()
    prompts = [found.encoder.decode(found(0, [row]).packed.tokens[0].tolist()) for row in rows]
    unknown = np.array([text.count("\n?: ") for text in prompts])
    plain = np.array([text.count("\n- ") for text in prompts])
    size = plain.max()
    assert set(plain) == {0, size} and 3 < (plain > 0).sum() < 19
    assert 0.35 < unknown[plain == 0].mean() / size < 0.65
    again = found.encoder.decode(found(0, [rows[0]]).packed.tokens[0].tolist())
    assert again == prompts[0]

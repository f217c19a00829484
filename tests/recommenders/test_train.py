"""Training of every kind: it learns, is saved, and is reproducible."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from raypo.config import RecommenderConfig, load_config
from raypo.errors import InputError
from raypo.recommenders import train as training
from raypo.recommenders.fit import training_windows
from raypo.recommenders.scoring import hit_ratio, score_candidates
from raypo.recommenders.train import load_recommender, train_recommender
from tests.recommenders.inputs import KINDS, circle_dataset, small_model


def test_every_interaction_is_predicted_once():
    train = pd.DataFrame(
        {
            "user_id": [0, 0, 0, 1],
            "history": [[1, 2], [1, 2, 3], [1, 2, 3, 4], [7]],
            "target": [3, 4, 5, 8],
        }
    )
    assert training_windows(train, max_length=3) == [[1, 2, 3, 4], [4, 5], [7, 8]]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_dataset", circle_dataset)

    def run(kind: str, name: str, **changes):
        settings = {"hidden": 16, "batch_size": 16, "max_epochs": 15, "heads": 2} | changes
        settings.setdefault("encoder", "tiny-random")
        config = RecommenderConfig(
            data=tmp_path, output=tmp_path / name, **settings | {"kind": kind}
        )
        return config, train_recommender(config)

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_deterministic_sequence_is_learned_and_saved(trained, kind):
    config, summary = trained(kind, "one")
    assert summary["validation/HitRatio@1"] > 0.9
    model = load_recommender(config.output)
    frame = circle_dataset(config.data).test
    scores = score_candidates(model, frame)
    # The target is the second candidate.
    assert (scores.argmax(axis=1) == 1).mean() > 0.9
    assert hit_ratio(model, frame) == summary["validation/HitRatio@1"]
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_scores_as_before_saving(trained, monkeypatch, kind):
    models = []
    save = training.save_recommender
    monkeypatch.setattr(
        training,
        "save_recommender",
        lambda model, *rest: (models.append(model), save(model, *rest)),
    )
    config, _ = trained(kind, "one", max_epochs=2)
    frame = circle_dataset(config.data).test
    loaded = load_recommender(config.output)
    before, after = (score_candidates(m.requires_grad_(False), frame) for m in (*models, loaded))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_weights_and_another_seed_others(trained, kind):
    states = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        config, _ = trained(kind, name, max_epochs=2, seed=seed)
        states.append(load_recommender(config.output).state_dict())
    one, two, three = states
    for name, weights in one.items():
        assert torch.equal(weights, two[name]), name
        # What a frozen encoder says of the texts has no seed.
        is_text = name in ("items.texts", "items.centre", "items.scale")
        assert torch.equal(weights, three[name]) == is_text, name


def test_a_finished_run_is_recognised(trained):
    config, summary = trained("sasrec", "one", max_epochs=2)
    before = (config.output / "model.safetensors").stat().st_mtime_ns
    assert trained("sasrec", "one", max_epochs=2)[1] == summary
    assert (config.output / "model.safetensors").stat().st_mtime_ns == before


def test_a_model_without_kind_is_sasrec(trained):
    config, _ = trained("sasrec", "one", max_epochs=2)
    frame = circle_dataset(config.data).test
    before = score_candidates(load_recommender(config.output), frame)
    file = config.output / "model.json"
    settings = json.loads(file.read_text())
    for name in ("kind", "horizontal_filters", "vertical_filters"):
        del settings[name]
    file.write_text(json.dumps(settings))
    after = score_candidates(load_recommender(config.output), frame)
    assert np.array_equal(before, after)


def test_an_unknown_kind_is_named(trained, tmp_path):
    with pytest.raises(InputError, match=r"command line: kind: .*'caser' or 'morec'"):
        load_config(RecommenderConfig, None, ["data=x", f"output={tmp_path}", "kind=bert4rec"])
    config, _ = trained("gru4rec", "one", max_epochs=1)
    file = config.output / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"kind": "bert4rec"}))
    with pytest.raises(InputError, match=r"one/model\.json: kind: 'bert4rec' is unknown"):
        load_recommender(config.output)


def test_missing_models_and_invalid_heads_are_refused(tmp_path):
    with pytest.raises(InputError, match="no trained recommender there"):
        load_recommender(tmp_path)
    with pytest.raises(InputError, match="64 is not a multiple of heads"):
        train_recommender(RecommenderConfig(data=tmp_path, output=tmp_path / "x", heads=7))


@pytest.mark.parametrize("kind", ["gru4rec", "caser"])
def test_heads_do_not_constrain_kinds_without_attention(trained, kind):
    assert trained(kind, "one", heads=7, max_epochs=1)[1]["steps"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_hit_ratio_counts_the_first_ranked(kind):
    model = small_model(kind, num_items=4)
    frame = pd.DataFrame({"history": [[0], [1]], "target": [2, 3], "candidates": [[2, 2], [3, 3]]})
    assert hit_ratio(model, frame) == 1.0
    frame["target"] = [0, 3]
    assert np.isclose(hit_ratio(model, frame), 0.5)

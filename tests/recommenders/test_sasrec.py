"""SASRec: causality, padding, bounds, determinism, and that it learns what can be learnt."""

import numpy as np
import pandas as pd
import pytest
import torch

from raypo.config import InputError, RecommenderConfig
from raypo.data.dataset import Dataset
from raypo.recommenders import train as training
from raypo.recommenders.sasrec import SASRec
from raypo.recommenders.train import load_recommender, train_recommender, training_windows


@pytest.fixture
def model() -> SASRec:
    torch.manual_seed(0)
    return SASRec(num_items=20, hidden=16, layers=2, heads=2, max_length=5, dropout=0.2).eval()


def test_later_items_do_not_change_earlier_places(model):
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 7]])
    torch.testing.assert_close(model(one)[:, :2], model(other)[:, :2])
    assert not torch.allclose(model(one)[:, 2:], model(other)[:, 2:])


def test_padding_changes_nothing(model):
    plain, padded = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3, -1, -1]])
    torch.testing.assert_close(model.embed(plain), model.embed(padded))


def test_long_histories_are_cut_to_the_most_recent(model):
    long = torch.tensor([[9, 8, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, -1, -1]])
    embedded = model.embed(long)
    torch.testing.assert_close(embedded[0], embedded[1])


def test_scores_are_cosines_and_padding_scores_nothing(model):
    embeddings = torch.randn(3, 16) * 100
    scores = model.score(embeddings, torch.tensor([[0, 1, -1]] * 3))
    assert scores.abs().max() <= 1
    assert scores[:, 2].tolist() == [0, 0, 0]
    torch.testing.assert_close(scores[:, :2], model.score_all(embeddings)[:, :2])


def test_every_interaction_is_predicted_once():
    train = pd.DataFrame(
        {
            "user_id": [0, 0, 0, 1],
            "history": [[1, 2], [1, 2, 3], [1, 2, 3, 4], [7]],
            "target": [3, 4, 5, 8],
        }
    )
    assert training_windows(train, max_length=3) == [[1, 2, 3, 4], [4, 5], [7, 8]]


def cycle_dataset(folder) -> Dataset:
    """Users walk around a circle of 12 items: the next item is certain."""
    rows = [
        {
            "user_id": user,
            "history": [(user + offset + place) % 12 for place in range(4)],
            "target": (user + offset + 4) % 12,
            "timestamp": offset,
        }
        for user in range(40)
        for offset in range(3)
    ]
    train = pd.DataFrame(rows)
    held = train.head(36).copy()
    held["candidates"] = [[(t + shift) % 12 for shift in (3, 0, 5, 7)] for t in held["target"]]
    items = pd.DataFrame({"item_id": range(12), "title": [str(i) for i in range(12)]})
    return Dataset(folder, train, held, held, items, {"files": {}})


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_dataset", lambda folder: cycle_dataset(folder))

    def run(name: str):
        config = RecommenderConfig(
            data=tmp_path, output=tmp_path / name, hidden=16, batch_size=16, max_epochs=15, heads=2
        )
        return config, train_recommender(config)

    return run


def test_a_certain_sequence_is_learnt_and_kept(trained):
    config, summary = trained("one")
    assert summary["validation/HitRatio@1"] > 0.9
    model = load_recommender(config.output)
    frame = cycle_dataset(config.data).test
    scores = training.score_candidates(model, frame)
    assert (scores.argmax(axis=1) == 1).mean() > 0.9
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_same_seed_same_weights_and_a_finished_run_is_recognised(trained):
    one, summary = trained("one")
    two, _ = trained("two")
    for (name, a), (_, b) in zip(
        load_recommender(one.output).state_dict().items(),
        load_recommender(two.output).state_dict().items(),
        strict=True,
    ):
        assert torch.equal(a, b), name
    before = (one.output / "model.safetensors").stat().st_mtime_ns
    assert trained("one")[1] == summary
    assert (one.output / "model.safetensors").stat().st_mtime_ns == before


def test_what_is_no_recommender_is_named(tmp_path):
    with pytest.raises(InputError, match="no trained recommender there"):
        load_recommender(tmp_path)
    with pytest.raises(InputError, match="64 is not a multiple of heads"):
        train_recommender(RecommenderConfig(data=tmp_path, output=tmp_path / "x", heads=7))


def test_hit_ratio_counts_the_first_ranked():
    model = SASRec(num_items=4, hidden=4, layers=1, heads=1, max_length=3, dropout=0.0)
    frame = pd.DataFrame({"history": [[0], [1]], "target": [2, 3], "candidates": [[2, 2], [3, 3]]})
    assert training.hit_ratio(model, frame) == 1.0
    frame["target"] = [0, 3]
    assert np.isclose(training.hit_ratio(model, frame), 0.5)

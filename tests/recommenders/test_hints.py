"""Hints: what recommenders know, out of fold, as prompts carry it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raypo.config import PolicyConfig, RecommenderConfig
from raypo.config.data import FoldsConfig
from raypo.data.dataset import load_dataset
from raypo.data.folds import SEEN_BY_ALL, held_out_folds
from raypo.data.prepare import prepare
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError
from raypo.recommenders.heuristics import fit_heuristic, heuristic_scores
from raypo.recommenders.hint_sources import (
    HintInputs,
    describe_hints,
    held_out_hints,
    training_hints,
)
from raypo.recommenders.hints import RecommenderHints, SourceFits
from raypo.recommenders.scoring import score_candidates
from raypo.recommenders.train import load_recommender, train_recommender
from tests.training.inputs import log_config

HISTORIES = [[1, 2], [3]]
CANDIDATES = [[4, 5, 6], [6, 7, 8]]


def fixed(scores):
    return lambda histories, candidates: np.array(scores)[: len(histories)]


def hints_of(kind, *scores, **options):
    sources = tuple(SourceFits(f"S{i}", fixed(own)) for i, own in enumerate(scores))
    return RecommenderHints(kind, sources, np.linspace(-1, 1, 10), **options)


SCORES = ([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]], [[5.0, 5.0, 6.0], [1.0, 2.0, 3.0]])


def test_ranks_of_every_source_stand_before_each_title() -> None:
    hints = hints_of("rank", *SCORES)
    first, second = hints(HISTORIES, CANDIDATES)
    assert first.marks == ["3 2:", "1 3:", "2 1:"]  # of equal scores the first is better
    assert second.marks == ["1 3:", "3 2:", "2 1:"]
    assert hints.sentence == " (ranks by S0, S1)"
    assert hints.marker is None


def test_order_is_that_of_the_first_source() -> None:
    (first, second) = hints_of("order", *SCORES)(HISTORIES, CANDIDATES)
    assert first.order.tolist() == [1, 2, 0]
    assert second.order.tolist() == [0, 2, 1]
    assert first.marks is None


def test_vectors_hold_item_score_and_popularity() -> None:
    hints = hints_of("vector", *SCORES, features=("score", "popularity"))
    first, _ = hints(HISTORIES, CANDIDATES)
    assert hints.num_features == first.candidate_features.shape[1] == 4
    scores = np.array([SCORES[0][0], SCORES[1][0]])
    standardised = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    popularity = np.linspace(-1, 1, 10)
    expected = np.column_stack([np.ones(3), standardised.T, popularity[[4, 5, 6]]])
    assert np.allclose(first.candidate_features, expected, atol=1e-6)
    history = np.column_stack([np.zeros(2), np.zeros((2, 2)), popularity[[1, 2]]])
    assert np.allclose(first.history_features, history, atol=1e-6)


NEW = np.arange(10) == 5


def test_sources_that_read_no_texts_say_nothing_of_new_items() -> None:
    hints = hints_of("rank", *SCORES, new=NEW)
    reading = replace(hints.sources[1], reads_texts=True)
    first, second = replace(hints, sources=(hints.sources[0], reading))(HISTORIES, CANDIDATES)
    assert first.marks == ["2 2:", "? 3:", "1 1:"]
    assert second.marks == ["1 3:", "3 2:", "2 1:"]
    (first, _) = hints_of("order", *SCORES, new=NEW)(HISTORIES, CANDIDATES)
    assert first.order.tolist() == [2, 0, 1]


def test_hidden_candidates_have_no_rank_and_are_not_counted() -> None:
    hidden = [np.array([False, True, False]), np.array([True, True, True])]
    first, second = hints_of("rank", *SCORES)(HISTORIES, CANDIDATES, hidden=hidden)
    assert first.marks == ["2 2:", "? ?:", "1 1:"]
    assert second.marks == ["? ?:"] * 3


@pytest.mark.parametrize("weights", [None, np.array([2.0, -1.0])])
def test_scores_of_new_items_change_nothing_and_are_zero_in_vectors(weights) -> None:
    noise = [[0.1, -70.0, 0.5], [3.0, 1.0, 2.0]]
    options = {"features": ("item", "score", "popularity"), "new": NEW, "weights": weights}
    found = []
    for scores in (SCORES[0], noise):
        hints = hints_of("vector", scores, SCORES[1], **options)
        sources = (replace(hints.sources[0], item_vectors=np.ones((10, 2))), hints.sources[1])
        found.append(replace(hints, sources=sources)([[1, 5], [3]], CANDIDATES)[0])
    assert np.array_equal(found[0].candidate_features, found[1].candidate_features)
    rest = 2 + (2 if weights is None else 1) + 1
    assert found[0].candidate_features[1].tolist() == [1.0] + [0.0] * rest
    assert found[0].history_features[1].tolist() == [0.0] * (1 + rest)


def test_users_with_other_numbers_of_candidates_are_scored_apart() -> None:
    def score(histories, candidates):
        return candidates * np.array([len(history) for history in histories])[:, None]

    hints = RecommenderHints("rank", (SourceFits("S", score),), np.zeros(10))
    marks = [user.marks for user in hints([[1], [2, 3], [4]], [[5, 6], [7, 8, 9], [9, 8]])]
    assert marks == [["2:", "1:"], ["3:", "2:", "1:"], ["1:", "2:"]]


def test_folds_by_time_hold_out_the_later_rows() -> None:
    frame = pd.DataFrame(
        {"user_id": [1, 2, 1, 2, 3], "history": [[0]] * 5, "target": [1] * 5,
         "timestamp": [5, 1, 9, 5, 7]}
    )  # fmt: skip
    folds = held_out_folds(FoldsConfig(share=0.4), TrainingRows.of_frame(frame))
    # Rows of the same time as the last of the earliest are not held out either.
    assert folds.tolist() == [SEEN_BY_ALL, SEEN_BY_ALL, 0, SEEN_BY_ALL, 0]


def test_folds_by_users_hold_each_users_rows_out_of_one_fit() -> None:
    users = np.arange(30).repeat(3)
    frame = pd.DataFrame({"user_id": users, "history": [[0]] * 90, "target": [1] * 90})
    folds = held_out_folds(FoldsConfig(by="users", count=3), TrainingRows.of_frame(frame))
    by_user = folds.reshape(30, 3)
    assert (by_user == by_user[:, :1]).all()
    assert np.bincount(by_user[:, 0]).tolist() == [10, 10, 10]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hints")
    data = folder / "data"
    prepare(log_config(folder, data))
    for by in ("time", "users"):
        settings = {"max_epochs": 2, "folds": {"by": by, "count": 2}}
        train_recommender(RecommenderConfig(data=data, output=folder / by, **settings))
    train_recommender(RecommenderConfig(data=data, output=folder / "full", max_epochs=2))
    return folder


def hint_inputs(folder: Path) -> HintInputs:
    dataset = load_dataset(folder / "data")
    rows = TrainingRows.of_frame(dataset.train)
    return HintInputs(rows, dataset.num_items, dataset.fingerprint)


@pytest.mark.parametrize("by", ["time", "users"])
def test_a_row_is_hinted_at_by_a_fit_that_has_not_seen_it(inputs: Path, by: str) -> None:
    data = hint_inputs(inputs)
    policy = PolicyConfig(hints="rank", hints_recommender=[inputs / by, "item-knn"])
    found = training_hints(policy, data)
    train = load_dataset(inputs / "data").train
    eligible = np.arange(len(train)) if found.eligible is None else found.eligible
    assert (len(eligible) == len(train)) == (by == "users")
    row = int(eligible[-1])
    fold = int(found.folds[row])
    candidates = [int(train["target"][row]), *range(5)]
    (scores,) = found.hints.scores([list(train["history"][row])], [candidates], [fold])
    model = load_recommender(inputs / by / "folds" / str(fold))
    frame = pd.DataFrame({"history": [train["history"][row]], "candidates": [candidates]})
    assert np.allclose(scores[0], score_candidates(model, frame)[0])
    without = TrainingRows.of_frame(train[found.folds != fold].reset_index(drop=True))
    assert row not in np.flatnonzero(found.folds != fold)
    knn = fit_heuristic("item-knn", without, data.num_items)
    expected = knn([list(train["history"][row])], np.array([candidates]))
    assert np.allclose(scores[1], expected[0])


def test_held_out_rows_are_hinted_at_by_the_fit_to_all_rows(inputs: Path) -> None:
    policy = PolicyConfig(hints="rank", hints_recommender=[inputs / "time", "item-knn"])
    dataset = load_dataset(inputs / "data")
    scores = held_out_hints(policy, hint_inputs(inputs)).scores(
        list(dataset.test["history"]), list(dataset.test["candidates"])
    )
    model = load_recommender(inputs / "time")
    assert np.allclose([own[0] for own in scores], score_candidates(model, dataset.test))
    expected = heuristic_scores("item-knn", dataset, dataset.test)
    assert np.allclose([own[1] for own in scores], expected)


def test_vectors_of_training_and_held_out_rows_are_of_one_fit(inputs: Path) -> None:
    policy = PolicyConfig(hints="vector", hints_recommender=inputs / "time")
    data = hint_inputs(inputs)
    training, held_out = training_hints(policy, data).hints, held_out_hints(policy, data)
    for one in (training, held_out):
        weight = load_recommender(inputs / "time/folds/0").items.weight
        unit = (weight / weight.norm(dim=1, keepdim=True)).numpy()
        assert np.allclose(one.sources[0].item_vectors, unit * 8, atol=1e-5)  # d = 64
    assert training.num_features == 1 + 64 + 1 + 1


def test_hints_in_fold_are_refused_unless_asked_for_by_name(inputs: Path) -> None:
    data = hint_inputs(inputs)
    policy = PolicyConfig(hints="rank", hints_recommender=inputs / "full")
    with pytest.raises(InputError, match=r"in fold; train it with folds\.by=time"):
        training_hints(policy, data)
    assert training_hints(policy.model_copy(update={"hints_in_fold": True}), data).folds is None
    # Held-out rows are out of fold for every fit.
    assert held_out_hints(policy, data).kind == "rank"


def test_a_fit_to_other_rows_than_it_says_is_refused(inputs: Path, tmp_path: Path) -> None:
    settings = json.loads((inputs / "time/folds/0/model.json").read_text())
    policy = PolicyConfig(hints="rank", hints_recommender=tmp_path / "copy")
    import shutil

    shutil.copytree(inputs / "time", tmp_path / "copy")
    changed = settings | {"fitted_rows": "0" * 64}
    (tmp_path / "copy/folds/0/model.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="was fitted to other rows"):
        training_hints(policy, hint_inputs(inputs))
    changed = settings | {"dataset": "another"}
    (tmp_path / "copy/folds/0/model.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="fitted to another data set"):
        training_hints(policy, hint_inputs(inputs))


def test_sources_that_do_not_fit_are_refused(inputs: Path) -> None:
    data = hint_inputs(inputs)
    for settings, message in (
        ({"hints": "rank"}, "needs a source"),
        ({"hints": "rank", "hints_recommender": [inputs / "time", inputs / "users"]},
         "sources with different folds"),
        ({"hints": "vector", "hints_recommender": inputs / "users"}, "needs .* folds.by=time"),
        ({"hints": "vector", "hints_recommender": "item-knn"}, "needs a sequential recommender"),
        ({"hints": "rank", "hints_recommender": inputs / "absent"}, "no trained recommender"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            training_hints(PolicyConfig(**settings), data)


def test_a_fused_hint_is_one_score_by_weights_of_out_of_fold_rows(inputs: Path) -> None:
    data = hint_inputs(inputs)
    sources = [inputs / "time", "item-knn"]
    policy = PolicyConfig(hints="rank", hints_recommender=sources, hint_fusion=True)
    fused, found = training_hints(policy, data).hints, training_hints(policy, data)
    apart = replace(fused, weights=None)
    histories, candidates = [[1, 2, 3]], [[4, 5, 6, 7]]
    (own,) = apart.scores(histories, candidates, [0])
    (one,) = fused.scores(histories, candidates, [0])
    centred = (own - own.mean(1, keepdims=True)) / own.std(1, keepdims=True)
    assert np.allclose(one, fused.weights @ centred)
    assert one.shape == (1, 4) and len(fused(histories, candidates, [0])[0].marks[0].split()) == 1
    # The weights are those of an independent fit to all later rows.
    rows = np.flatnonzero(found.folds == 0)
    assert len(rows) < 2000
    held_out = held_out_hints(policy, data)
    assert np.allclose(held_out.weights, fused.weights)
    assert fused.sentence == " (ranks by recommenders)"


def test_hints_are_described_with_their_sources_and_folds(inputs: Path) -> None:
    policy = PolicyConfig(hints="rank", hints_recommender=[inputs / "time", "item-knn"])
    said = describe_hints(policy)
    assert said == "prompts have hints (rank) of SASRec, item-kNN; in training out of fold."
    changed = policy.model_copy(update={"hint_fusion": True, "hints_in_fold": True})
    assert "SASRec, item-kNN, fused into one; in training IN FOLD" in describe_hints(changed)

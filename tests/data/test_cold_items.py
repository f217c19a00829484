"""split_by=cold-items: some items that training never shows, and candidates of both kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raypo.config import PrepareConfig
from raypo.data.candidates import CandidateSampler, TrainingCandidates, sample_unseen
from raypo.data.dataset import Dataset, load_training_data
from raypo.data.prepare import dataset_key
from raypo.data.training_rows import TrainingRows
from tests.data.logs import prepared

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]


@pytest.fixture
def data(make_config: MakeConfig) -> Dataset:
    return prepared(make_config(split_by="cold-items", cold_share=0.2, candidates=8))


def test_training_never_shows_a_cold_item(data: Dataset) -> None:
    assert data.cold is not None
    cold = set(np.flatnonzero(data.cold).tolist())
    assert len(cold) == 12 == data.info["counts"]["cold_items"]
    shown = {int(item) for history in data.train["history"] for item in history}
    assert not (shown | set(data.train["target"])) & cold
    assert (data.items["popularity"][data.cold] == 0).all()


def test_held_out_rows_have_targets_and_histories_of_both_kinds(data: Dataset) -> None:
    assert data.cold is not None
    for frame in (data.validation, data.test):
        kinds = data.cold[frame["target"].to_numpy()]
        assert kinds.any() and not kinds.all()
    histories = np.concatenate(data.test["history"].to_list())
    assert data.cold[histories].any()


def test_the_number_of_cold_candidates_does_not_tell_the_kind_of_the_target(data: Dataset) -> None:
    assert data.cold is not None
    for frame in (data.validation, data.test):
        for row in frame.itertuples():
            candidates = row.candidates
            assert len(set(candidates.tolist())) == 8
            assert row.target in candidates
            assert data.cold[candidates].sum() == 2  # a fifth of eight


def test_rows_are_divided_by_time(data: Dataset) -> None:
    ends = [frame["timestamp"].max() for frame in (data.train, data.validation)]
    assert ends[0] <= data.validation["timestamp"].min()
    assert ends[1] <= data.test["timestamp"].min()


def test_early_interactions_with_cold_items_still_count_as_seen(data: Dataset, log: Log) -> None:
    # The target and its time tell the log's user.
    user_of = {(item, time): user for user, item, time in log}
    ids = data.items["source_id"]
    for row in data.test.itertuples():
        user = user_of[ids[row.target], row.timestamp]
        seen = {item for own, item, _ in log if own == user}
        assert {ids[item] for item in row.candidates} & seen == {ids[row.target]}


def test_training_draws_no_cold_negative(data: Dataset) -> None:
    loaded = load_training_data(data.folder, 5, 0)
    assert loaded.cold is not None and data.cold is not None
    assert np.array_equal(loaded.cold, data.cold)
    rows = TrainingRows.of_frame(data.train)
    candidates = TrainingCandidates(rows, data.num_items, 8, 0, data.cold)
    for row in range(len(data.train)):
        assert not data.cold[candidates.draw(row, 0)].any()
        assert not data.cold[candidates.unseen(row)].any()


def test_a_seed_draws_the_cold_items(make_config: MakeConfig, tmp_path: Path) -> None:
    made = [
        prepared(
            make_config(split_by="cold-items", candidates=8, seed=seed, output=tmp_path / str(n))
        ).cold
        for n, seed in enumerate((0, 0, 1))
    ]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_other_splits_keep_their_keys_whatever_the_share(make_config: MakeConfig) -> None:
    assert dataset_key(make_config()) == dataset_key(make_config(cold_share=0.3))
    cold = {"split_by": "cold-items"}
    assert dataset_key(make_config(**cold)) != dataset_key(make_config(**cold, cold_share=0.3))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sampling": "popularity"}, "sampling: popularity"), ({"candidates": 3}, "at least 4")],
)
def test_candidates_of_both_kinds_are_possible(
    make_config: MakeConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(split_by="cold-items", **change)


@given(
    num_items=st.integers(6, 60),
    data=st.data(),
)
def test_excluded_items_are_not_drawn_and_the_rest_is_complete(
    num_items: int, data: st.DataObject
) -> None:
    items = st.sets(st.integers(0, num_items - 1))
    seen, excluded = data.draw(items), data.draw(items)
    free = set(range(num_items)) - seen - excluded
    mask = np.isin(np.arange(num_items), list(excluded))
    generator = np.random.default_rng(0)
    drawn = sample_unseen(generator, seen, num_items, len(free), mask)
    assert sorted(drawn) == sorted(free)
    with pytest.raises(ValueError, match=f"there are {len(free)}"):
        sample_unseen(generator, seen, num_items, len(free) + 1, mask)


def test_cold_candidates_that_are_used_up_are_filled_up() -> None:
    cold = np.arange(40) < 4
    sampler = CandidateSampler(
        40, 10, "uniform", np.zeros(40), np.zeros(40, dtype=np.int64), 0, cold
    )
    candidates, filled = sampler.draw(2, 0, {0, 1, 2, 3, 20}, 20)
    assert filled
    assert len(set(candidates)) == 10 and not cold[candidates].any()

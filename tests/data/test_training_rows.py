"""Training rows: mapped from disk, the same as plain Python would have them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.data import permutation, training_rows
from raypo.data.candidates import TrainingCandidates, sample_unseen
from raypo.data.permutation import Permutation, draw
from raypo.data.training_rows import TrainingRows, open_training_rows
from raypo.data.writing import write_parquet
from raypo.errors import InputError
from raypo.io.files import file_hash

ITEMS = 50


def make_frame(seed: int = 0, rows: int = 300) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": r.integers(5, 40, rows) * 1000,
            "history": [r.integers(0, ITEMS, r.integers(1, 11)).tolist() for _ in range(rows)],
            "target": r.integers(0, ITEMS, rows),
            "timestamp": np.arange(rows),
        }
    )


def plain_seen(frame: pd.DataFrame) -> dict[int, set[int]]:
    seen: dict[int, set[int]] = {}
    for user, history, target in zip(frame.user_id, frame.history, frame.target, strict=True):
        seen.setdefault(user, set()).update([*history, target])
    return seen


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, TrainingRows]:
    monkeypatch.setattr(training_rows, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(training_rows, "_BATCH", 64)  # several batches,
    monkeypatch.setattr(training_rows, "_SORTED", 500)  # and several ranges of users
    frame = make_frame()
    file = tmp_path / "train.parquet"
    write_parquet(frame, file)
    content = file_hash(file)
    open_training_rows(file, content, ITEMS)
    file.unlink()  # it is not read again
    return frame, open_training_rows(file, content, ITEMS)


@pytest.mark.parametrize("mapped", [True, False])
def test_rows_and_seen_items_are_those_of_the_frame(
    opened: tuple[pd.DataFrame, TrainingRows], mapped: bool
) -> None:
    frame, rows = opened
    if not mapped:
        rows = TrainingRows.of_frame(frame)
    seen = plain_seen(frame)
    assert len(rows) == len(frame)
    for number in range(len(frame)):
        assert rows.history(number) == frame["history"][number]
        assert rows.targets[number] == frame["target"][number]
        assert rows.seen_by_user_of(number).tolist() == sorted(seen[frame["user_id"][number]])
    assert rows.user_ids.tolist() == sorted(seen)


def test_negatives_are_those_of_a_plain_draw(opened: tuple[pd.DataFrame, TrainingRows]) -> None:
    frame, rows = opened
    candidates, seen = TrainingCandidates(rows, ITEMS, 3, seed=9), plain_seen(frame)
    for row in range(0, len(frame), 17):
        generator = np.random.default_rng([9, 2, row])
        expected = sample_unseen(generator, seen[frame["user_id"][row]], ITEMS, 2)
        assert set(candidates.negatives(row, 2, 2)) == set(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": [3, 50]}, "row 2: its target is an unknown item"),
        ({"history": [[1], []]}, "row 2: its history is empty"),
        ({"history": [[-1], [2]]}, "row 1: its history holds an unknown item"),
    ],
)
def test_impossible_rows_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, list[object]], message: str
) -> None:
    monkeypatch.setattr(training_rows, "cache_folder", lambda: tmp_path / "cache")
    file = tmp_path / "train.parquet"
    good: dict[str, list[object]] = {
        "user_id": [1, 2],
        "history": [[1], [2]],
        "target": [3, 4],
        "timestamp": [5, 6],
    }
    write_parquet(pd.DataFrame(good | change), file)
    with pytest.raises(InputError, match=f"train.parquet: {message}"):
        open_training_rows(file, file_hash(file), ITEMS)
    with pytest.raises(InputError, match="changed since it was prepared"):
        open_training_rows(file, "another", ITEMS)


@given(st.integers(1, 3000), st.integers(0, 2**32), st.integers(0, 5))
def test_a_computed_order_holds_every_number_once(size: int, seed: int, epoch: int) -> None:
    order = permutation._walk((seed, epoch), size, np.arange(size)).tolist()
    assert sorted(order) == list(range(size))
    if size > 50:
        assert order != permutation._walk((seed, epoch + 1), size, np.arange(size)).tolist()


def test_a_computed_order_is_uniform() -> None:
    """Chi-square of where 20 numbers land, over 2,000 seeds."""
    size, seeds = 20, 2000
    counts = np.zeros((size, size))
    for seed in range(seeds):
        counts[np.arange(size), permutation._walk((seed,), size, np.arange(size))] += 1
    expected = seeds / size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_small_orders_are_numpys_and_large_ones_take_no_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = np.random.default_rng([3, 1]).permutation(1000)
    assert np.array_equal(Permutation((3, 1), 1000)[np.arange(1000)], expected)
    drawn = draw([3, 1000], 1000, 200)
    assert np.array_equal(
        np.asarray(drawn), np.random.default_rng([3, 1000]).choice(1000, 200, replace=False)
    )
    monkeypatch.setattr(permutation, "LISTED", 500)
    large = draw([3, 1000], 1000, 700)
    assert len(large) == 700
    rows = large[np.arange(700)].tolist()
    assert len(set(rows)) == 700 and set(rows) <= set(range(1000))
    assert len(draw([3, 10**9], 10**9, 5)) == 5

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.config import InputError, PrepareConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.prepare import draw_candidates, prepare, slide, split_by_time
from raypo.runs import file_hash

from .conftest import NUM_ITEMS, write_lines

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]


def prepared(config: PrepareConfig) -> Dataset:
    prepare(config)
    return load_dataset(config.output)


def ordered(log: Log) -> Log:
    return sorted(log, key=lambda row: row[2])  # stable: ties stay in file order


def all_rows(data: Dataset) -> pd.DataFrame:
    return pd.concat([data.train, data.validation, data.test], ignore_index=True)


def test_rows_agree_with_a_plain_construction(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config(history_length=5, minimum_history=2))
    sequences: dict[str, list[int]] = {}
    expected = []
    for user, item, time in ordered(log):
        before = sequences.setdefault(user, [])
        if len(before) >= 2:
            expected.append((list(sequences).index(user), before[-5:], int(item[1:]), time))
        before.append(int(item[1:]))
    rows = all_rows(data)
    found = zip(rows["user_id"], rows["history"], rows["target"], rows["timestamp"], strict=True)
    assert [(u, h.tolist(), i, t) for u, h, i, t in found] == expected
    total = len(expected)
    assert len(data.train) == total * 8 // 10
    assert len(data.validation) == total * 9 // 10 - total * 8 // 10
    assert data.info["counts"]["test"] == len(data.test)


def test_candidates_hold_the_target_and_items_never_touched(
    make_config: MakeConfig, log: Log
) -> None:
    data = prepared(make_config(candidates=8))
    names = list(dict.fromkeys(user for user, _, _ in ordered(log)))
    touched = {name: {int(i[1:]) for u, i, _ in log if u == name} for name in names}
    for frame in (data.validation, data.test):
        for row in frame.itertuples():
            candidates = row.candidates.tolist()
            assert len(set(candidates)) == 8
            assert set(candidates) & touched[names[row.user_id]] == {row.target}
    positions = [
        row.candidates.tolist().index(row.target)
        for row in pd.concat([data.validation, data.test]).itertuples()
    ]
    assert set(positions) == set(range(8))


def test_popularity_counts_each_training_interaction_once(
    make_config: MakeConfig, log: Log
) -> None:
    data = prepared(make_config(history_length=4, minimum_history=3))
    last = data.train["timestamp"].iloc[-1]
    train_targets = Counter(zip(data.train["user_id"], data.train["target"], strict=True))
    names = list(dict.fromkeys(user for user, _, _ in ordered(log)))
    counted: set[tuple[int, int]] = set(train_targets)
    for user, history in zip(data.train["user_id"], data.train["history"], strict=True):
        counted |= {(user, item) for item in history.tolist()}
    expected = Counter(item for _, item in counted)  # the log holds no pair twice
    assert data.items["popularity"].tolist() == [expected[i] for i in range(NUM_ITEMS)]
    assert all((names.index(u), int(i[1:])) not in counted for u, i, t in log if t > last)


def test_items_are_numbered_by_row_and_titled(make_config: MakeConfig) -> None:
    data = prepared(make_config())
    assert data.items["source_id"].tolist() == [f"i{i}" for i in range(NUM_ITEMS)]
    assert data.titles[:3] == ["The Film 0 (1980)", "The Film 0 (1981)", "The Film 1 (1980)"]


def test_titles_left_as_they_are(make_config: MakeConfig) -> None:
    data = prepared(make_config(clean_titles=False))
    assert data.titles[:2] == ["Film 0, The (1980)", "Film 0, The (1981)"]


def test_maximum_rows_keeps_the_last_but_no_touched_candidate(
    make_config: MakeConfig, log: Log
) -> None:
    data = prepared(make_config(maximum_rows=150, minimum_history=1))
    kept = ordered(log)[-150:]
    names = list(dict.fromkeys(user for user, _, _ in kept))
    assert data.info["counts"]["interactions"] == 150
    assert len(all_rows(data)) == 150 - len(names)
    for row in data.test.itertuples():
        touched = {int(i[1:]) for u, i, _ in log if u == names[row.user_id]}
        assert set(row.candidates.tolist()) & touched == {row.target}


def test_same_input_same_bytes(make_config: MakeConfig, tmp_path: Path) -> None:
    for name in ("first", "second"):
        prepare(make_config(output=tmp_path / name))
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == [
        "dataset.json",
        "items.parquet",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    for file in files:
        assert file_hash(tmp_path / "first" / file) == file_hash(tmp_path / "second" / file)


def test_seed_changes_candidates_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    first = prepared(make_config())
    second = prepared(make_config(seed=1, output=tmp_path / "other"))
    drop = {"columns": "candidates"}
    pd.testing.assert_frame_equal(first.test.drop(**drop), second.test.drop(**drop))
    assert any((a != b).any() for a, b in zip(first.test.candidates, second.test.candidates))  # noqa: B905


def test_candidates_do_not_depend_on_which_rows_are_drawn_together() -> None:
    rows = pd.DataFrame({"user_id": [0, 1, 0, 1], "target": [1, 2, 3, 4]})
    touched = {0: {1, 3}, 1: {2, 4}}
    together = draw_candidates(rows, touched, 50, 6, (3, 1))
    assert draw_candidates(rows.iloc[2:], touched, 50, 6, (3, 1)) == together[2:]
    assert draw_candidates(rows, touched, 50, 6, (3, 2)) != together


def test_an_existing_data_set_is_recognised_or_refused(make_config: MakeConfig) -> None:
    config = make_config()
    info = prepare(config)
    stamps = {file: file.stat().st_mtime_ns for file in config.output.iterdir()}
    assert prepare(config) == info
    assert {file: file.stat().st_mtime_ns for file in config.output.iterdir()} == stamps
    with pytest.raises(InputError, match="other inputs or options"):
        prepare(make_config(history_length=4))
    (config.output / "train.parquet").unlink()
    with pytest.raises(InputError, match=r"train\.parquet is missing"):
        prepare(config)
    assert not [path for path in config.output.parent.iterdir() if path.name.startswith(".")]


def test_a_folder_or_file_of_something_else_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    config.output.mkdir()
    (config.output / "mine.txt").touch()
    with pytest.raises(InputError, match="not empty and not a prepared data set"):
        prepare(config)
    with pytest.raises(InputError, match="not empty and not a prepared data set"):
        prepare(make_config(output=config.output / "mine.txt"))


def test_unusable_inputs_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    stranger = write_lines(tmp_path / "stranger.inter", [header, "u\ti1\t1", "u\tnew\t2"])
    with pytest.raises(InputError, match=r"stranger.inter:3: item 'new' is not in"):
        prepare(make_config(interactions=stranger))
    with pytest.raises(InputError, match=r"candidates: 61 asked for, but user_id 'u.*' leaves"):
        prepare(make_config(candidates=61))
    with pytest.raises(InputError, match="no rows left for train, validation, test"):
        prepare(make_config(minimum_history=60))
    with pytest.raises(InputError, match=r"absent\.inter: no such file"):
        prepare(make_config(interactions=tmp_path / "absent.inter"))
    assert not make_config().output.exists()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_slide_gives_the_items_right_before_the_target(
    pairs: list[tuple[int, int]], history_length: int, minimum_history: int
) -> None:
    log = pd.DataFrame(pairs, columns=["user_id", "item_id"], dtype="int64")
    log["time"] = np.arange(len(pairs), dtype=float)
    rows = slide(log, history_length, minimum_history)
    counts = Counter(user for user, _ in pairs)
    assert len(rows) == sum(max(0, count - minimum_history) for count in counts.values())
    for row in rows.itertuples():
        before = [item for user, item in pairs[: row.timestamp] if user == row.user_id]
        assert row.history == before[-history_length:]
        assert (row.user_id, row.target) == pairs[row.timestamp]


@given(st.integers(0, 200), st.tuples(*[st.integers(1, 9)] * 3))
def test_splits_are_consecutive_and_whole(num_rows: int, shares: tuple[int, int, int]) -> None:
    splits = split_by_time(pd.DataFrame({"target": np.arange(num_rows)}), shares)
    joined = pd.concat(splits.values())["target"]
    assert joined.tolist() == list(range(num_rows))
    assert abs(len(splits["train"]) - num_rows * shares[0] / sum(shares)) < 1

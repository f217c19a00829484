"""Preparing a data set: rows, items, recognition, refusals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.audit import audit_summary
from raypo.config import PrepareConfig
from raypo.data.dataset import load_dataset
from raypo.data.examples import histories
from raypo.data.prepare import prepare
from raypo.data.split import positions_in_sequences
from raypo.errors import InputError
from raypo.io.files import file_hash
from tests.data.conftest import NUM_ITEMS, write_lines
from tests.data.logs import all_rows, ordered, prepared, write_log

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
Option = dict[str, object]


def test_rows_agree_with_a_simple_implementation(make_config: MakeConfig, log: Log) -> None:
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


def test_titles_without_cleaning(make_config: MakeConfig) -> None:
    data = prepared(make_config(clean_titles=False))
    assert data.titles[:2] == ["Film 0, The (1980)", "Film 0, The (1981)"]


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


def test_seed_changes_only_candidates(make_config: MakeConfig, tmp_path: Path) -> None:
    first = prepared(make_config())
    second = prepared(make_config(seed=1, output=tmp_path / "other"))
    drop = {"columns": "candidates"}
    pd.testing.assert_frame_equal(first.test.drop(**drop), second.test.drop(**drop))
    assert any((a != b).any() for a, b in zip(first.test.candidates, second.test.candidates))  # noqa: B905


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
    with pytest.raises(InputError, match=r"stranger.inter:3: item 'new' is not in the catalogue"):
        prepare(make_config(interactions=stranger))
    with pytest.raises(InputError, match=r"candidates: 61 asked for, but user 'u.*' has"):
        prepare(make_config(candidates=61))
    with pytest.raises(InputError, match="no rows left for train, validation, test"):
        prepare(make_config(minimum_history=60))
    with pytest.raises(InputError, match=r"absent\.inter: no such file"):
        prepare(make_config(interactions=tmp_path / "absent.inter"))
    assert not make_config().output.exists()


def test_unusable_rows_are_collected_counted_and_audited(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    broken = write_log(tmp_path, log, "broken.inter")
    with broken.open("a", encoding="utf-8") as file:
        file.write("u0\tnowhere\t5\nu0\ti1\tlate\nu0\n")
    config = make_config(interactions=broken, malformed="quarantine")
    info = prepare(config, audit=audit_summary)
    assert info["counts"]["quarantined"] == 3
    assert info["counts"]["interactions_read"] == len(log)
    lines = (config.output / "quarantine.jsonl").read_text().splitlines()
    reported = [(row["line"], row["problem"]) for row in map(json.loads, lines)]
    first = len(log) + 2
    assert sorted(reported) == [
        (first, "item 'nowhere' is not in the catalogue"),
        (first + 1, "timestamp is 'late', expected a number (below 2^53)"),
        (first + 2, "expected 3 fields, got 1"),
    ]
    (finding,) = [f for f in info["audit"]["findings"] if "quarantine" in f["what"]]
    assert finding["count"] == 3
    assert len(finding["examples"]) == 3
    assert prepare(config, audit=audit_summary) == info


def test_shared_titles_are_found(make_config: MakeConfig) -> None:
    info = prepare(make_config(), audit=audit_summary)
    (finding,) = [f for f in info["audit"]["findings"] if "share their title" in f["what"]]
    assert finding["count"] == NUM_ITEMS
    assert finding["examples"][0] == "i0: Film 0, The -> The Film 0 (1980)"


def test_a_large_data_set_is_audited_on_all_rows_of_some_users(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raypo.data.writing.AUDITED_ROWS", 150)
    config = make_config(split_by="leave-one-out", candidates=8)
    info = prepare(config, audit=audit_summary)
    assert info["audit"]["sampled"]
    complete, some = load_dataset(config.output), load_dataset(config.output, 150)
    users = set(some.train["user_id"])
    assert 0 < len(users) < 12
    for split in ("train", "validation", "test"):
        rows = getattr(complete, split)
        expected = rows[rows["user_id"].isin(users)].reset_index(drop=True)
        pd.testing.assert_frame_equal(getattr(some, split), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.filterwarnings("ignore")
def test_ray_workers_write_the_same_bytes(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypo.orchestration.prepare import prepare as prepare_with_ray

    hashes = set()
    for workers in (0, 1, 2):
        config = make_config(output=tmp_path / f"with{workers}", workers=workers)
        info = prepare_with_ray(config)
        hashes.add(tuple(sorted(info["files"].items())))
    assert len(hashes) == 1
    header = "user_id:token\titem_id:token\ttimestamp:float"
    stranger = write_lines(tmp_path / "stranger.inter", [header, "u\ti1\t1", "u\tnew\t2"])
    with pytest.raises(InputError, match=r"^\S+stranger.inter:3: item 'new' is not"):
        prepare_with_ray(
            make_config(interactions=stranger, workers=2, output=tmp_path / "stranger")
        )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_histories_are_the_items_right_before_the_target(
    pairs: list[tuple[int, int]], length: int, minimum_history: int
) -> None:
    pairs = sorted(pairs, key=lambda pair: pair[0])
    users = np.array([user for user, _ in pairs], dtype=np.int64)
    items = np.array([item for _, item in pairs], dtype=np.int64)
    positions = positions_in_sequences(users)
    targets = np.flatnonzero(positions >= minimum_history)
    found = histories(items, users, targets, length).to_pylist()
    for target, history in zip(targets.tolist(), found, strict=True):
        before = [item for user, item in pairs[:target] if user == users[target]]
        assert history == before[-length:]
        assert len(before) == positions[target]

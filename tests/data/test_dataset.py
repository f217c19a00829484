from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.config import PrepareConfig
from raypo.data.dataset import load_dataset, sample_rows
from raypo.data.prepare import prepare
from raypo.errors import InputError
from raypo.io.files import file_hash, read_json, write_json

MakeConfig = Callable[..., PrepareConfig]


@pytest.fixture
def folder(make_config: MakeConfig) -> Path:
    config = make_config()
    prepare(config)
    return config.output


def rewrite(folder: Path, name: str, change: Callable[[pd.DataFrame], Any]) -> None:
    """Change a file and put its new hash into dataset.json."""
    file = folder / f"{name}.parquet"
    frame = pd.read_parquet(file)
    changed = change(frame)
    (frame if changed is None else changed).to_parquet(file)
    info = read_json(folder / "dataset.json")
    info["files"][file.name] = file_hash(file)
    write_json(folder / "dataset.json", info)


def put(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], None]:
    def change(frame: pd.DataFrame) -> None:
        frame.at[row, column] = value

    return change


def test_all_files_of_a_data_set_are_read(folder: Path) -> None:
    data = load_dataset(folder)
    assert data.folder == folder
    assert data.num_items == len(data.titles) == 60
    assert list(data.train.columns) == ["user_id", "history", "target", "timestamp"]
    assert list(data.test.columns) == [*data.train.columns, "candidates"]
    assert data.info["counts"]["train"] == len(data.train)


def test_fingerprint_follows_the_content(folder: Path) -> None:
    before = load_dataset(folder).fingerprint
    assert load_dataset(folder).fingerprint == before
    rewrite(folder, "items", put("popularity", 0, 99))
    assert load_dataset(folder).fingerprint != before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train", put("history", 2, np.array([], dtype=np.int64)), "row 3: its history is empty"),
        ("train", put("history", 3, np.array([1, 60])), "row 4: its history holds an unknown"),
        ("train", put("history", 1, np.array([-1, 5])), "row 2: its history holds an unknown"),
        ("train", put("target", 4, 60), "row 5: its target is an unknown item"),
        ("test", put("candidates", 1, np.arange(40, 61)), "row 2: its candidates holds an unknown"),
        ("test", put("candidates", 1, np.arange(5)), "row 2: it does not have 20 candidates"),
        ("test", lambda f: f.assign(target=f.history.str[0]), "row 1: its target is not among"),
        ("test", lambda f: f.drop(columns="candidates"), "no column 'candidates'; it has user_id"),
        ("test", lambda f: f.head(0), "has no rows"),
        ("items", lambda f: f.iloc[::-1], "item_id must count"),
        ("items", put("title", 3, "The Film 0 (1980)"), "row 4: its title is already"),
        ("items", put("title", 3, None), "row 4: title is empty"),
    ],
)
def test_impossible_content_is_named(
    folder: Path, name: str, change: Callable[[pd.DataFrame], Any], message: str
) -> None:
    rewrite(folder, name, change)
    with pytest.raises(InputError, match=message) as error:
        load_dataset(folder)
    assert f"{name}.parquet" in str(error.value)


def test_a_repeated_candidate_is_named(folder: Path) -> None:
    def double(frame: pd.DataFrame) -> None:
        candidates, target = frame.at[2, "candidates"].copy(), frame.at[2, "target"]
        candidates[0 if candidates[0] != target else 1] = target
        frame.at[2, "candidates"] = candidates

    rewrite(folder, "validation", double)
    with pytest.raises(InputError, match=r"validation.parquet: row 3: an item occurs twice"):
        load_dataset(folder)


def test_missing_or_changed_files_are_named(folder: Path) -> None:
    with (folder / "test.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"test.parquet: changed since it was prepared"):
        load_dataset(folder)
    (folder / "test.parquet").unlink()
    with pytest.raises(InputError, match=r"test.parquet: missing"):
        load_dataset(folder)
    write_json(folder / "dataset.json", [])
    with pytest.raises(InputError, match=r"dataset.json: no `files`"):
        load_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset.json: no such file"):
        load_dataset(folder)
    with pytest.raises(InputError, match="no such data set"):
        load_dataset(folder / "absent")


@given(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 40)), st.integers(0, 2**31))
def test_sampled_rows_keep_order_and_number(size: int, rows: int | None, seed: int) -> None:
    frame = pd.DataFrame({"target": np.arange(size) * 10}, index=np.arange(size) + 5)
    sample = sample_rows(frame, rows, seed)
    assert len(sample) == min(size, size if rows is None else rows)
    assert sample["row"].is_monotonic_increasing
    assert sample["row"].is_unique
    assert sample["target"].tolist() == [10 * row for row in sample["row"]]
    assert sample.index.tolist() == list(range(len(sample)))
    assert "row" not in frame
    pd.testing.assert_frame_equal(sample, sample_rows(frame, rows, seed))

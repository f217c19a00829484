"""The order of interactions: ties, duplicates, ratings, several files and shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from raypo.config import PrepareConfig
from raypo.data.dataset import Dataset
from raypo.data.prepare import prepare
from raypo.data.shards import _random_keys
from tests.data.conftest import NUM_ITEMS, write_lines
from tests.data.logs import all_rows, expected_rows, named_rows, ordered, prepared, write_log

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
Option = dict[str, object]


@pytest.mark.parametrize(
    ("policy", "keep"),
    [("keep", [0, 1, 2, 3]), ("exact", [0, 2, 3]), ("first", [0]), ("last", [3])],
)
def test_duplicates(
    make_config: MakeConfig, log: Log, tmp_path: Path, policy: str, keep: list[int]
) -> None:
    again = [("u0", "again", time) for time in (5, 5, 6, 7)]
    items = write_lines(
        tmp_path / "items.item",
        ["item_id:token\tmovie_title:token_seq", "again\tAgain"]
        + [f"i{i}\tTitle {i}" for i in range(NUM_ITEMS)],
    )
    config = make_config(
        interactions=write_log(tmp_path, [*again, *log], "more.inter"),
        items=items,
        year_field=None,
        duplicates=policy,
    )
    data = prepared(config)
    kept = ordered([*(again[position] for position in keep), *log])
    assert named_rows(data, all_rows(data), kept) == expected_rows(log, kept, 10, 3)


def test_low_ratings_only_count_as_seen(make_config: MakeConfig, log: Log, tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines = [f"{u}\t{i}\t{1 + n % 5}\t{t}" for n, (u, i, t) in enumerate(log)]
    config = make_config(
        interactions=write_lines(tmp_path / "rated.inter", [header, *lines]),
        minimum_rating=3,
        candidates=8,
    )
    data = prepared(config)
    kept = ordered([row for n, row in enumerate(log) if n % 5 >= 2])
    assert named_rows(data, all_rows(data), kept) == expected_rows(log, kept, 10, 3)
    names = list(dict.fromkeys(user for user, _, _ in kept))
    for row in data.test.itertuples():
        seen = {int(i[1:]) for u, i, _ in log if u == names[row.user_id]}
        assert set(row.candidates.tolist()) & seen == {row.target}


def test_files_and_shards_of_a_log_do_not_change_the_result(
    make_config: MakeConfig, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = make_config(output=tmp_path / "single")
    prepare(single)
    monkeypatch.setattr("raypo.data.prepare._SHARD_BYTES", 512)
    monkeypatch.setattr("raypo.data.examples.PART", 17)
    monkeypatch.setattr("raypo.data.prepare.PART", 17)
    monkeypatch.setattr("raypo.data.readers.records.CHUNK", 23)
    third = len(log) // 3
    for number in range(3):
        part = log[number * third : (number + 1) * third if number < 2 else None]
        write_log(tmp_path, part, f"part{number}.inter")
    parts = make_config(output=tmp_path / "parts", interactions=tmp_path / "part*.inter")
    prepare(parts)
    for split in ("train", "validation", "test", "items"):
        a, b = (
            pd.read_parquet(tmp_path / name / f"{split}.parquet") for name in ("single", "parts")
        )
        pd.testing.assert_frame_equal(a, b)


def test_random_tie_break_keeps_the_order_of_time(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    """A log whose ties are ordered by id in the file: a random order changes nothing else."""
    by_id = sorted(log, key=lambda row: (row[2] // 30, int(row[1][1:])))
    coarse = [(user, item, time // 30) for user, item, time in by_id]
    source = write_log(tmp_path, coarse, "coarse.inter")

    def ascending(data: Dataset) -> float:
        pairs = [np.diff(row.history) > 0 for row in data.train.itertuples()]
        return float(np.concatenate(pairs).mean())

    filed = prepared(make_config(interactions=source, output=tmp_path / "file"))
    drawn = prepared(
        make_config(interactions=source, output=tmp_path / "drawn", tie_break="random")
    )
    again = prepared(
        make_config(interactions=source, output=tmp_path / "other", tie_break="random", seed=1)
    )
    assert ascending(filed) > 0.8 > 0.6 > ascending(drawn)
    assert [len(filed.train), len(filed.test)] == [len(drawn.train), len(drawn.test)]
    assert drawn.train["history"].map(tuple).tolist() != again.train["history"].map(tuple).tolist()
    for data in (drawn, again):
        rows = all_rows(data).groupby("user_id")["timestamp"]
        assert rows.apply(lambda times: times.is_monotonic_increasing).all()
    finding = [f for f in filed.info["audit"]["findings"] if "same time as an earlier" in f["what"]]
    assert finding[0]["severity"] == "warning"


def test_positions_in_a_log_become_distinct_random_keys() -> None:
    positions = np.concatenate([np.arange(5000), 2**40 + np.arange(5000)])
    keys = _random_keys(positions, 3)
    assert len(np.unique(keys)) == len(positions)
    assert (_random_keys(positions, 4) != keys).all()
    assert abs(scipy.stats.spearmanr(positions, keys).statistic) < 0.05

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from raypo.config import InputError, PrepareConfig
from raypo.data.candidates import CandidateSampler
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.examples import histories
from raypo.data.prepare import prepare
from raypo.data.shards import _lots
from raypo.data.split import positions_in_sequences
from raypo.io.files import file_hash

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
    with pytest.raises(InputError, match=r"candidates: 61 asked for, but user 'u.*' leaves"):
        prepare(make_config(candidates=61))
    with pytest.raises(InputError, match="no rows left for train, validation, test"):
        prepare(make_config(minimum_history=60))
    with pytest.raises(InputError, match=r"absent\.inter: no such file"):
        prepare(make_config(interactions=tmp_path / "absent.inter"))
    assert not make_config().output.exists()


Option = dict[str, object]


def expected_rows(log: Log, kept: Log, history_length: int, minimum_history: int) -> list[object]:
    """(user, history, target, time) of a kept log that is in order, users by name."""
    sequences: dict[str, list[str]] = {}
    rows: list[object] = []
    for user, item, time in kept:
        before = sequences.setdefault(user, [])
        if len(before) >= minimum_history:
            rows.append((user, tuple(before[-history_length:]), item, time))
        before.append(item)
    return rows


def named_rows(data: Dataset, frame: pd.DataFrame, kept: Log) -> list[object]:
    """The same of a prepared split."""
    names = list(dict.fromkeys(user for user, _, _ in kept))
    items = data.items["source_id"].tolist()
    return [
        (names[row.user_id], tuple(items[i] for i in row.history), items[row.target], row.timestamp)
        for row in frame.itertuples()
    ]


def core(log: Log, users: int, items: int) -> Log:
    """One interaction after the other is taken out as long as one has too few beside it."""
    left = list(log)
    while True:
        user = Counter(row[0] for row in left)
        item = Counter(row[1] for row in left)
        bad = [row for row in left if user[row[0]] < users or item[row[1]] < items]
        if not bad:
            return left
        left.remove(bad[0])


@pytest.mark.parametrize(("users", "items"), [(30, 0), (0, 7), (28, 3), (2, 2)])
def test_filters_leave_the_core(make_config: MakeConfig, log: Log, users: int, items: int) -> None:
    data = prepared(
        make_config(
            minimum_user_interactions=users,
            minimum_item_interactions=items,
            minimum_history=1,
            candidates=4,
        )
    )
    kept = ordered(core(log, users, items))
    assert len(kept) > 0
    assert data.info["counts"]["interactions"] == len(kept)
    assert named_rows(data, all_rows(data), kept) == expected_rows(log, kept, 10, 1)
    left = {item for _, item, _ in kept}
    expected = [f"i{i}" for i in range(NUM_ITEMS) if not items or f"i{i}" in left]
    assert data.items["source_id"].tolist() == expected


def test_leave_one_out_holds_each_users_last_rows_out(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config(split_by="leave-one-out", minimum_history=2))
    kept = ordered(log)
    rows = expected_rows(log, kept, 10, 2)
    for name, back in (("test", 1), ("validation", 2)):
        found = named_rows(data, getattr(data, name), kept)
        own = [[row for row in rows if row[0] == user] for user in {row[0] for row in rows}]  # type: ignore[index]
        assert sorted(found) == sorted(mine[-back] for mine in own)  # type: ignore[type-var]
    assert len(all_rows(data)) == len(rows)
    assert data.train["timestamp"].is_monotonic_increasing


def test_by_user_holds_whole_users_out(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config(split_by="by-user", split=(2, 1, 1)))
    users = [set(frame["user_id"]) for frame in (data.train, data.validation, data.test)]
    assert [len(one) for one in users] == [6, 3, 3]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]
    kept = ordered(log)
    assert sorted(named_rows(data, all_rows(data), kept)) == sorted(expected_rows(log, kept, 10, 3))  # type: ignore[type-var]


def write_log(folder: Path, log: Log, name: str = "log.inter") -> Path:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    return write_lines(folder / name, [header] + [f"{u}\t{i}\t{t}" for u, i, t in log])


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
    kept = ordered([*(again[place] for place in keep), *log])
    assert named_rows(data, all_rows(data), kept) == expected_rows(log, kept, 10, 3)


def test_low_ratings_only_count_as_touched(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
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
        touched = {int(i[1:]) for u, i, _ in log if u == names[row.user_id]}
        assert set(row.candidates.tolist()) & touched == {row.target}


def test_the_parts_of_a_log_and_their_shards_do_not_matter(
    make_config: MakeConfig, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_config(output=tmp_path / "whole")
    prepare(whole)
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
            pd.read_parquet(tmp_path / name / f"{split}.parquet") for name in ("whole", "parts")
        )
        pd.testing.assert_frame_equal(a, b)


def test_candidates_by_popularity_and_by_category(make_config: MakeConfig, tmp_path: Path) -> None:
    items = write_lines(
        tmp_path / "kinds.item",
        ["item_id:token\tmovie_title:token_seq\tkind:token"]
        + [f"i{i}\tTitle {i}\t{'even' if i % 2 == 0 else 'odd'}|x" for i in range(NUM_ITEMS)],
    )
    options: Option = {"items": items, "year_field": None, "candidates": 5}
    by_kind = prepared(
        make_config(sampling="category", category_field="kind", output=tmp_path / "kind", **options)
    )
    filled = by_kind.info["counts"]["candidate_sets_filled_uniformly"]
    mixed = sum(
        len({item % 2 for item in row.candidates.tolist()}) > 1
        for row in pd.concat([by_kind.validation, by_kind.test]).itertuples()
    )
    assert mixed <= filled < len(by_kind.test)
    popular = prepared(make_config(sampling="popularity", output=tmp_path / "popular", **options))
    uniform = prepared(make_config(output=tmp_path / "uniform", **options))

    def mean_popularity(data: Dataset) -> float:
        counts = data.items["popularity"].to_numpy()
        drawn = [
            counts[item]
            for row in pd.concat([data.validation, data.test]).itertuples()
            for item in row.candidates.tolist()
            if item != row.target
        ]
        return float(np.mean(drawn))

    assert mean_popularity(popular) > 1.03 * mean_popularity(uniform)


def test_weights_give_the_chances(tmp_path: Path) -> None:
    weights = np.array([0, 1, 2, 5, 0])
    sampler = CandidateSampler(5, 2, "popularity", weights, np.zeros(5), 0)
    drawn = Counter(
        next(item for item in sampler.draw(1, row, {4}, 4)[0] if item != 4) for row in range(4000)
    )
    assert set(drawn) == {1, 2, 3}
    assert scipy.stats.chisquare([drawn[1], drawn[2], drawn[3]], [500, 1000, 2500]).pvalue > 1e-3


def test_unusable_rows_are_set_aside_counted_and_audited(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    broken = write_log(tmp_path, log, "broken.inter")
    with broken.open("a", encoding="utf-8") as file:
        file.write("u0\tnowhere\t5\nu0\ti1\tlate\nu0\n")
    config = make_config(interactions=broken, malformed="quarantine")
    info = prepare(config)
    assert info["counts"]["quarantined"] == 3
    assert info["counts"]["interactions_read"] == len(log)
    lines = (config.output / "quarantine.jsonl").read_text().splitlines()
    told = [(row["line"], row["problem"]) for row in map(json.loads, lines)]
    first = len(log) + 2
    assert sorted(told) == [
        (first, "item 'nowhere' is not in the catalogue"),
        (first + 1, "timestamp is 'late', expected a number (below 2^53)"),
        (first + 2, "expected 3 fields, got 1"),
    ]
    (finding,) = [f for f in info["audit"]["findings"] if "quarantine" in f["what"]]
    assert finding["count"] == 3
    assert len(finding["examples"]) == 3
    assert prepare(config) == info


def test_titles_that_several_items_share_are_found(make_config: MakeConfig) -> None:
    info = prepare(make_config())
    (finding,) = [f for f in info["audit"]["findings"] if "title another item has" in f["what"]]
    assert finding["count"] == NUM_ITEMS
    assert finding["examples"][0] == "i0: Film 0, The -> The Film 0 (1980)"


def test_ties_by_lot_keep_the_order_of_time_alone(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    """A log whose ties stand by id in the file: by lot they do not, and nothing else changes."""
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


def test_places_in_a_log_become_distinct_lots() -> None:
    places = np.concatenate([np.arange(5000), 2**40 + np.arange(5000)])
    lots = _lots(places, 3)
    assert len(np.unique(lots)) == len(places)
    assert (_lots(places, 4) != lots).all()
    assert abs(scipy.stats.spearmanr(places, lots).statistic) < 0.05


def test_a_large_data_set_is_audited_by_whole_users(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raypo.data.writing.AUDITED_ROWS", 150)
    config = make_config(split_by="leave-one-out", candidates=8)
    info = prepare(config)
    assert info["audit"]["sampled"]
    whole, some = load_dataset(config.output), load_dataset(config.output, 150)
    users = set(some.train["user_id"])
    assert 0 < len(users) < 12
    for split in ("train", "validation", "test"):
        rows = getattr(whole, split)
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

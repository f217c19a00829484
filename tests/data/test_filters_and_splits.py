"""Which interactions are kept, and which rows each split gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raypo.config import PrepareConfig
from tests.data.conftest import NUM_ITEMS
from tests.data.logs import all_rows, core, expected_rows, named_rows, ordered, prepared

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
Option = dict[str, object]


def test_maximum_rows_keeps_the_latest_and_still_excludes_seen_candidates(
    make_config: MakeConfig, log: Log
) -> None:
    data = prepared(make_config(maximum_rows=150, minimum_history=1))
    kept = ordered(log)[-150:]
    names = list(dict.fromkeys(user for user, _, _ in kept))
    assert data.info["counts"]["interactions"] == 150
    assert len(all_rows(data)) == 150 - len(names)
    for row in data.test.itertuples():
        seen = {int(i[1:]) for u, i, _ in log if u == names[row.user_id]}
        assert set(row.candidates.tolist()) & seen == {row.target}


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


def test_by_user_holds_out_all_rows_of_some_users(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config(split_by="by-user", split=(2, 1, 1)))
    users = [set(frame["user_id"]) for frame in (data.train, data.validation, data.test)]
    assert [len(one) for one in users] == [6, 3, 3]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]
    kept = ordered(log)
    assert sorted(named_rows(data, all_rows(data), kept)) == sorted(expected_rows(log, kept, 10, 3))  # type: ignore[type-var]


@pytest.mark.parametrize(("held_out", "position"), [("first", 0), ("last", -1)])
def test_a_user_has_one_row_behind_each_point_in_time(
    make_config: MakeConfig, log: Log, tmp_path: Path, held_out: str, position: int
) -> None:
    every = prepared(make_config(output=tmp_path / "every"))
    data = prepared(make_config(held_out=held_out, output=tmp_path / held_out))
    kept = ordered(log)
    assert data.train.equals(every.train)
    assert (data.items["popularity"] == every.items["popularity"]).all()
    for name in ("validation", "test"):
        rows = named_rows(every, getattr(every, name), kept)
        users = dict.fromkeys(row[0] for row in rows)  # type: ignore[index]
        expected = [[row for row in rows if row[0] == user][position] for user in users]  # type: ignore[index]
        found = named_rows(data, getattr(data, name), kept)
        assert sorted(found) == sorted(expected)  # type: ignore[type-var]
        assert len(found) < len(rows)
    periods = data.info["periods"]
    assert periods["train"][1] <= periods["validation"][0]
    assert periods["validation"][1] <= periods["test"][0]
    assert periods["test"] == [data.test["timestamp"].min(), data.test["timestamp"].max()]


def test_one_row_of_a_user_is_of_a_split_in_time(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="split_by=chronological"):
        make_config(split_by="by-user", held_out="last")

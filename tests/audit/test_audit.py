"""The audit finds problems of a data set, and nothing severe if there is none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from raypo.audit import audit
from raypo.audit.item_orders import ascending_share, follows, hidden
from raypo.data.dataset import Dataset

ITEMS, USERS, CANDIDATES = 120, 150, 10


def dataset(tmp_path, sequence_of, targets_at=None, **options) -> Dataset:
    """Prefix rows of users' sequences, split by user, candidates at random."""
    r = np.random.default_rng(0)
    frames = {"train": [], "validation": [], "test": []}
    for user in range(USERS):
        items = sequence_of(r, user)
        split = "train" if user < 100 else "validation" if user < 125 else "test"
        for end in range(3, len(items)):
            others = np.setdiff1d(np.arange(ITEMS), items)
            candidates = r.permutation(
                np.append(r.choice(others, CANDIDATES - 1, False), items[end])
            )
            if targets_at is not None:
                position = int(np.flatnonzero(candidates == items[end])[0])
                candidates[[position, targets_at]] = candidates[[targets_at, position]]
            row = (user, items[:end], int(items[end]), user * 100 + end, candidates)
            frames[split].append(row)
    columns = ["user_id", "history", "target", "timestamp", "candidates"]
    tables = {name: pd.DataFrame(rows, columns=columns) for name, rows in frames.items()}
    items = pd.DataFrame(
        {
            "item_id": np.arange(ITEMS),
            "source_id": [f"x{i}" for i in range(ITEMS)],
            # Titles in an unrelated order, none inside another.
            "title": [f"<{(i * 77) % ITEMS:03}>" for i in range(ITEMS)],
            "popularity": np.bincount(tables["train"]["target"], minlength=ITEMS),
        }
    )
    info = {"files": {}, "options": options}
    return Dataset(tmp_path, **tables, items=items, info=info)


def by_preference(r, user):
    """A user likes items of one kind, in any order."""
    kind = user % 4
    return r.choice(np.arange(kind, ITEMS, 4), 10, replace=False)


def ascending(r, user):
    """Random items, in the order of a catalogue number that is not in the files."""
    secret = np.random.default_rng(99).permutation(ITEMS)
    return secret[np.sort(r.choice(ITEMS, 10, replace=False))]


def severe(result):
    return [finding.what for finding in result.findings if finding.severity == "severe"]


def test_sound_data_has_no_severe_finding_and_baselines_score_above_chance(tmp_path):
    result = audit(dataset(tmp_path, by_preference))
    assert severe(result) == [] and not result.severe
    scores = {one.name: one for one in result.heuristics}
    assert scores["random"].hit_ratio == pytest.approx(1 / CANDIDATES)
    assert scores["item-kNN"].low > 2 / CANDIDATES
    # An order made from the sequences themselves may group items of one kind.
    others = [one for one in result.heuristics if not one.baseline and "hidden" not in one.name]
    assert len(others) == 4 and all(one.low < 2 / CANDIDATES for one in others)


def test_a_hidden_order_is_found_without_ids(tmp_path):
    data = dataset(tmp_path, ascending)
    result = audit(data)
    assert any("in a hidden order" in what and "neighbours" in what for what in severe(result))
    best = result.heuristics[0]
    assert best.name == "next in a hidden order after the last history item"
    baselines = [one.hit_ratio for one in result.heuristics if one.baseline]
    assert best.hit_ratio > 0.4 and best.low > max(baselines)
    assert ascending_share(data.test, hidden(data.train, ITEMS)) > 0.9


def test_a_frequent_position_of_targets_is_found(tmp_path):
    result = audit(dataset(tmp_path, by_preference, targets_at=3))
    assert any("position 4 of the candidate list" in what for what in severe(result))


def test_held_out_rows_in_training_are_found(tmp_path):
    data = dataset(tmp_path, by_preference)
    copied = replace(data, train=pd.concat([data.train, data.test], ignore_index=True))
    found = {finding.what: finding for finding in audit(copied).findings}
    shared = found["held-out rows whose history and target are in training too"]
    assert shared.severity == "severe"
    assert (shared.count, shared.of) == (len(data.test), len(data.test) + len(data.validation))
    assert len(shared.examples) == 3 and shared.examples[0].startswith("test:0 ")
    assert "held-out rows of users with training rows" in found


def test_targets_in_histories_and_late_training_rows_are_counted(tmp_path):
    data = dataset(tmp_path, by_preference)
    test = data.test.copy()
    test.at[0, "target"] = int(test["history"].iat[0][0])
    candidates = test["candidates"].iat[0].copy()
    candidates[0] = test["target"].iat[0]
    test.at[0, "candidates"] = candidates
    train = data.train.assign(timestamp=data.train["timestamp"] + 10**6)
    found = {f.what: f for f in audit(replace(data, train=train, test=test)).findings}
    assert found["held-out rows whose target is in the history"].count == 1
    late = found["training rows later than the earliest test row"]
    assert (late.count, late.severity) == (len(train), "warning")


def test_titles_inside_titles_are_counted(tmp_path):
    data = dataset(tmp_path, by_preference)
    items = data.items.assign(title=["Alien" if i == 0 else f"Alien {i:03}" for i in range(ITEMS)])
    found = {f.what: f for f in audit(replace(data, items=items)).findings}
    with_alien = sum(
        0 in row for rows in (data.validation, data.test) for row in rows["candidates"]
    )
    assert found["held-out rows with a candidate's title inside another's"].count == with_alien


def test_neighbours_stay_within_a_row():
    rows = pd.DataFrame({"history": [[1, 2], [5]], "target": [3, 6]})
    assert follows(rows).tolist() == [[1, 2], [2, 3], [5, 6]]


def test_targets_of_test_rows_at_one_position_are_found_where_validation_has_none(tmp_path):
    data = dataset(tmp_path, by_preference)
    moved = dataset(tmp_path, by_preference, targets_at=CANDIDATES - 1)
    found = audit(replace(data, test=moved.test))
    best = next(one for one in found.heuristics if "position" in one.name)
    assert best.name == f"position {CANDIDATES} of the candidate list" and best.hit_ratio == 1
    what = [one.what for one in found.findings if one.severity == "severe"]
    assert any(one.startswith("test rows: targets stand at some positions") for one in what)
    assert not any("position" in one.what for one in audit(data).findings)


def test_positions_are_not_fitted_to_the_rows_that_they_answer(tmp_path):
    heuristics = audit(dataset(tmp_path, by_preference)).heuristics
    score = next(one for one in heuristics if "position" in one.name)
    assert score.low < 1 / CANDIDATES < score.high


def test_test_rows_copied_into_validation_are_found(tmp_path):
    data = dataset(tmp_path, by_preference)
    copied = pd.concat([data.validation, data.test.head(20)], ignore_index=True)
    (finding,) = [
        one
        for one in audit(replace(data, validation=copied)).findings
        if one.what == "test rows whose history and target are in validation too"
    ]
    assert (finding.severity, finding.count, finding.of) == ("severe", 20, len(data.test))
    assert len(finding.examples) == 3 and finding.examples[0].startswith("test:0 ")

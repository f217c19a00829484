"""The audit finds problems of a data set, and nothing severe if there is none."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from raypo.audit import audit
from raypo.audit.item_orders import ascending_share, follows, hidden
from raypo.cli.main import app
from raypo.config import ImportConfig, InputError
from raypo.data.dataset import Dataset, load_dataset
from raypo.orchestration.prepare import import_published

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


# Importing, which includes the audit.


def published(file, rows):
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return file


def rows_of(data: Dataset, frame: pd.DataFrame):
    titles = data.titles
    for row in frame.itertuples():
        yield {
            "historyList": "::".join(titles[i] for i in row.history),
            "itemList": [titles[i] for i in row.candidates],
            "trueSelection": titles[row.target],
        }


@pytest.fixture
def files(tmp_path):
    data = dataset(tmp_path, ascending)
    return data, {
        name: published(tmp_path / f"{name}.jsonl", rows_of(data, getattr(data, name)))
        for name in ("train", "validation", "test")
    }


def test_an_import_keeps_rows_as_published_and_audits_them(files, tmp_path):
    data, paths = files
    info = import_published(ImportConfig(**paths, output=tmp_path / "out"))
    again = import_published(ImportConfig(**paths, output=tmp_path / "out"))
    assert again == info
    read = load_dataset(tmp_path / "out")
    for split in ("train", "validation", "test"):
        theirs, ours = getattr(data, split), getattr(read, split)
        for old, new in zip(theirs.itertuples(), ours.itertuples(), strict=True):
            assert [read.titles[i] for i in new.history] == [data.titles[i] for i in old.history]
            assert read.titles[new.target] == data.titles[old.target]
        assert ours["user_id"].nunique() == theirs["user_id"].nunique()
    assert [read.titles[i] for i in read.test["candidates"].iat[0]] == [
        data.titles[i] for i in data.test["candidates"].iat[0]
    ]
    assert any(finding["severity"] == "severe" for finding in info["audit"]["findings"])
    shown = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "out")]).stdout
    assert "severe: " in shown and "hidden order" in shown
    plain = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "out"), "--json"]).stdout
    assert json.loads(plain)["rows"] == len(data.test)


def test_without_validation_the_last_training_rows_are_used(files, tmp_path):
    data, paths = files
    config = ImportConfig(train=paths["train"], test=paths["test"], output=tmp_path / "out")
    counts = import_published(config)["counts"]
    assert counts["validation"] == -(-len(data.train) // 10)
    assert counts["train"] + counts["validation"] == len(data.train)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"train.jsonl:2: not JSON"),
        ("[]", r"train.jsonl:2: is list, expected an object"),
        ('{"historyList": 3}', r"train.jsonl:2: historyList is 3, expected titles"),
        ('{"historyList": "a::", "itemList": ["a"], "trueSelection": "a"}', "holds an empty title"),
        ('{"historyList": "a", "itemList": ["a"], "trueSelection": "b"}', "expected one of its 1"),
    ],
)
def test_a_malformed_row_is_named(files, tmp_path, row, message):
    _, paths = files
    first = paths["train"].read_text(encoding="utf-8").splitlines()[0]
    paths["train"].write_text(f"{first}\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        import_published(ImportConfig(**paths, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_rows_that_cannot_be_evaluated_are_rejected_and_counted(files, tmp_path):
    _, paths = files
    rows = [json.loads(line) for line in paths["test"].read_text(encoding="utf-8").splitlines()]
    rows[1]["itemList"][0] = rows[1]["itemList"][1] = rows[1]["trueSelection"]
    rows[3]["itemList"] = [t for t in rows[3]["itemList"] if t != rows[3]["trueSelection"]]
    published(paths["test"], rows)
    with pytest.raises(InputError, match=r"test.jsonl:2: itemList holds '<\d+>' more than once"):
        import_published(ImportConfig(**paths, output=tmp_path / "out"))
    config = ImportConfig(**paths, output=tmp_path / "out", malformed="quarantine")
    info = import_published(config)
    assert info["counts"]["test"] == len(rows) - 2
    assert info["counts"]["quarantined"] == 2
    (finding,) = [f for f in info["audit"]["findings"] if "quarantine" in f["what"]]
    assert "expected one of its 9 candidates" in finding["examples"][1]

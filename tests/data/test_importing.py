"""Importing published files: rows as published, titles told apart, every broken row named."""

import gzip
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from raypo.cli.main import app
from raypo.config import ImportConfig, InputError
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.joined_titles import JoinedTitles
from raypo.orchestration.prepare import import_published
from tests.audit.test_audit import ascending, dataset


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
    # A user whose rows the cut divides is one user.
    assert counts["users"] == data.train["user_id"].nunique() + data.test["user_id"].nunique()


# Titles that contain the separator.

NAMES = ["Alien", ":wumpscut:", "Depths of Fear :: Knossos", "A:", ":B", "Heat", "C::D::E"]


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6), st.sampled_from(["::", " :: "]))
def test_joined_titles_are_found_again_or_said_to_be_several(titles, joined_by):
    text = joined_by.join(titles)
    try:
        assert JoinedTitles(NAMES, "::").split(text) == titles
    except ValueError as error:
        assert "several sequences of known titles" in str(error)
        assert all(one in text for one in titles)


def test_titles_with_the_separator_are_told_by_the_lists_that_name_them(tmp_path):
    history = ["Alien", ":wumpscut:", "Depths of Fear :: Knossos"]
    row = {"historyList": "::".join(history), "itemList": [*NAMES, "Up"], "trueSelection": "Up"}
    file = published(tmp_path / "test.jsonl", [row] * 3)
    info = import_published(ImportConfig(test=file, output=tmp_path / "out"))
    read = load_dataset(tmp_path / "out")
    assert [read.titles[i] for i in read.test["history"].iat[0]] == history
    assert info["counts"]["items"] == len(NAMES) + 1


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("Alien::Heat::Unheard", "it holds 'Unheard', which no candidate list or target names"),
        ("Alien::::Heat", "holds an empty title"),
        ("X::Y", r"is several sequences of known titles, such as \['X', 'Y'\] and \['X::Y'\]"),
    ],
)
def test_a_history_that_cannot_be_told_is_said_with_its_line(tmp_path, history, message):
    candidates = ["Alien", "Heat", "X", "Y", "X::Y"]
    good = {"historyList": "Alien::Heat", "itemList": candidates, "trueSelection": "X"}
    file = published(tmp_path / "test.jsonl", [good, good | {"historyList": history}])
    with pytest.raises(InputError, match=rf"test.jsonl:2: its history cannot be told: .*{message}"):
        import_published(ImportConfig(test=file, output=tmp_path / "out"))


# Broken rows.

GOOD = {"historyList": ["a", "b"], "itemList": ["c", "d", "a"], "trueSelection": "c"}
BROKEN = [
    ("{", "not JSON"),
    ("[]", "is list, expected an object"),
    ('{"a": ' * 100_000, "not JSON"),
    ("[" * 50_000 + "]" * 50_000, "not JSON"),
    ('{"historyList": 3}', "no field 'itemList'; it has historyList"),
    (json.dumps(GOOD | {"historyList": 3}), "historyList is 3, expected titles"),
    (json.dumps(GOOD | {"historyList": []}), "historyList holds an empty title"),
    (json.dumps(GOOD | {"historyList": " "}), "historyList is empty"),
    (json.dumps(GOOD | {"historyList": "a::nobody"}), "its history cannot be told"),
    (json.dumps(GOOD | {"itemList": ["c", 4]}), "expected titles"),
    (json.dumps(GOOD | {"trueSelection": None}), "trueSelection is None, expected a title"),
    (json.dumps(GOOD | {"trueSelection": "z"}), "expected one of its 3 candidates"),
    (json.dumps(GOOD | {"itemList": ["c", "c", "a"]}), "itemList holds 'c' more than once"),
]


@pytest.mark.parametrize(("row", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_every_kind_of_broken_row_stops_with_its_line_or_is_set_aside(tmp_path, row, message):
    good = json.dumps(GOOD)
    file = tmp_path / "test.jsonl"
    file.write_text(f"{good}\n\n{row}\n{good}\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        import_published(ImportConfig(test=file, output=tmp_path / "out"))
    assert str(error.value).startswith(f"{file}:3: ") and message in str(error.value)
    assert not (tmp_path / "out").exists()
    config = ImportConfig(test=file, output=tmp_path / "out", malformed="quarantine")
    info = import_published(config)
    assert info["counts"]["test"] == 2 and info["counts"]["quarantined"] == 1
    (kept,) = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(kept)["line"] == 3 and message in json.loads(kept)["problem"]


def test_a_broken_array_names_the_element(tmp_path):
    file = tmp_path / "test.json"
    file.write_text(json.dumps([GOOD, GOOD, {}]))
    with pytest.raises(InputError, match=r"test.json:3: no field 'historyList'; it has no field"):
        import_published(ImportConfig(test=file, output=tmp_path / "out"))


def test_lists_of_another_length_are_refused(tmp_path):
    file = published(tmp_path / "test.jsonl", [GOOD, GOOD | {"itemList": ["c", "a"]}])
    with pytest.raises(InputError, match=r"test.jsonl:2: has 2 candidates, unlike line 1 with 3"):
        import_published(ImportConfig(test=file, output=tmp_path / "out"))


def test_other_line_separators_stay_inside_titles(tmp_path):
    title = "Line\u2028and\x85other\x0bbreaks"
    row = {"historyList": [title, "b"], "itemList": ["c", title], "trueSelection": "c"}
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8", newline="")
    import_published(ImportConfig(test=file, output=tmp_path / "out"))
    assert title in load_dataset(tmp_path / "out").titles


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD).encode("utf-16"), "test.jsonl: is UTF-16, expected UTF-8; convert it"),
        (json.dumps(GOOD).encode() + b'\n{"a": "\xff"}', "test.jsonl:2: not UTF-8"),
        (b"", "test.jsonl: has no usable rows"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "test.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_published(ImportConfig(test=tmp_path / "test.jsonl", output=tmp_path / "out"))


# What the source calls users and items.


def test_users_and_ids_of_the_source_are_kept(tmp_path):
    rows = [GOOD | {"user": user} for user in ("u7", "u9", "u7")]
    file = tmp_path / "test.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    catalogue = tmp_path / "items.csv"
    catalogue.write_text("item_id,title\n" + "\n".join(f"id-{t},{t}" for t in "abcde") + "\n")
    config = ImportConfig(test=file, output=tmp_path / "out", user_field="user", items=catalogue)
    info = import_published(config)
    read = load_dataset(tmp_path / "out")
    assert read.test["user_id"].tolist() == [0, 1, 0] and info["counts"]["users"] == 2
    assert dict(zip(read.titles, read.items["source_id"], strict=True)) == {
        title: f"id-{title}" for title in "abcd"
    }


@pytest.mark.parametrize(
    ("catalogue", "message"),
    [
        ("1,a\n2,b\n3,c\n", "lacks 1 of 4 titles, such as 'd'"),
        ("1,a\n2,b\n3,c\n4,d\n5,d\n", "'d' is the title of several ids"),
    ],
)
def test_a_catalogue_that_does_not_fit_is_refused(tmp_path, catalogue, message):
    file = published(tmp_path / "test.jsonl", [GOOD])
    (tmp_path / "items.csv").write_text("item_id,title\n" + catalogue)
    with pytest.raises(InputError, match=message):
        import_published(
            ImportConfig(test=file, output=tmp_path / "out", items=tmp_path / "items.csv")
        )

"""Importing published files: how rows are read, and which are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from raypo.config import EvaluateConfig, ImportConfig, RecommenderConfig
from raypo.config.loading import load_config
from raypo.data.dataset import load_dataset
from raypo.data.importing import import_published
from raypo.errors import InputError
from raypo.orchestration.evaluate import evaluate
from raypo.orchestration.prepare import import_published as import_data
from raypo.recommenders.train import train_recommender
from tests.data.published import (
    TITLES,
    config_of,
    imported,
    row,
    some_rows,
    titles_of,
    write_rows,
)


def test_titles_may_hold_the_separator(tmp_path: Path) -> None:
    names = [":wumpscut:", "Depths of Fear :: Knossos", "Enigma", "And One", "::", "A::"]
    histories = [
        (":wumpscut:::And One", [":wumpscut:", "And One"]),
        ("Enigma:::wumpscut:::Enigma", ["Enigma", ":wumpscut:", "Enigma"]),
        ("Enigma::Depths of Fear :: Knossos", ["Enigma", "Depths of Fear :: Knossos"]),
        ("Enigma:: And One ", ["Enigma", "And One"]),
        ("Enigma::::::And One", ["Enigma", "::", "And One"]),
        ("A::::Enigma", ["A::", "Enigma"]),
        ("Enigma", ["Enigma"]),
    ]
    listed = [row([name], name, names) for name in names] + [row(["Enigma"], "A::", names[::-1])]
    write_rows(tmp_path / "train.jsonl", listed)
    write_rows(tmp_path / "test.jsonl", [row(text, "Enigma", names) for text, _ in histories])
    data = imported(tmp_path)
    assert titles_of(data, "test") == [titles for _, titles in histories]
    assert sorted(data.titles) == sorted(names)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ("Alien::Nobody", "historyList holds 'Nobody', which no target, candidate list"),
        ("Alien::::Brazil", "historyList holds an empty title"),
        ("A::B::Alien", "historyList is 'A::B::Alien', which divides into titles in several ways"),
    ],
)
def test_a_history_that_does_not_divide_into_titles_is_named(
    tmp_path: Path, history: str, problem: str
) -> None:
    names = [*TITLES, "A", "B", "A::B"]
    listed = [row([name], name, names) for name in names]
    write_rows(tmp_path / "train.jsonl", listed)
    write_rows(tmp_path / "test.jsonl", [*listed, row(history, "Alien")])
    with pytest.raises(InputError) as error:
        import_published(config_of(tmp_path))
    assert f"{tmp_path}/test.jsonl:10: {problem}" in str(error.value)
    data = imported(tmp_path, malformed="quarantine")
    assert (len(data.test), data.info["counts"]["quarantined"]) == (9, 1)


def test_candidates_in_one_text_are_divided_by_known_titles(tmp_path: Path) -> None:
    rows = some_rows()
    rows.append(row(["Alien"], ":wumpscut:"))
    for one in rows:
        one["itemList"] = "::".join(one["itemList"])
    write_rows(tmp_path / "train.jsonl", rows)
    data = imported(tmp_path, test=tmp_path / "train.jsonl", validation=tmp_path / "train.jsonl")
    assert titles_of(data, "test", "candidates")[-1] == [":wumpscut:", *TITLES[:3]]


def test_line_separators_inside_json_are_part_of_a_title(tmp_path: Path) -> None:
    titles = ["Be\u2028low", "N\u0085el", "F\x0c", *TITLES]
    lines = [json.dumps(row([title], "Alien", titles), ensure_ascii=False) for title in titles]
    (tmp_path / "test.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    data = imported(tmp_path)
    assert titles_of(data, "test")[:3] == [["Be\u2028low"], ["N\u0085el"], ["F"]]


def with_field(**changes: object) -> str:
    """A usable row with changed fields; None removes a field."""
    changed = row(["Alien"], "Brazil") | changes
    return json.dumps({name: value for name, value in changed.items() if value is not None})


BROKEN = {
    "{": "not JSON (Expecting property name",
    "[]": "is list, expected an object",
    "3": "is int, expected an object",
    '{"a": ' + "[" * 100_000: "not JSON that can be read (nested too deeply)",
    "1" * 5000: "not JSON (",
    with_field(historyList=None): "no field 'historyList'; its fields are itemList, trueSelection",
    with_field(itemList=None): "no field 'itemList'",
    with_field(trueSelection=None): "no field 'trueSelection'",
    with_field(historyList=3): "historyList is 3, expected titles",
    with_field(historyList=["Alien", 3]): "historyList is ['Alien', 3], expected titles",
    with_field(historyList=[]): "historyList is empty",
    with_field(historyList=" "): "historyList is empty",
    with_field(historyList=["Alien", " "]): "historyList holds an empty title",
    with_field(historyList=["\ud800"]): "historyList holds '\\ud800', which is not Unicode",
    with_field(itemList={"a": 1}): "itemList is {'a': 1}, expected titles",
    with_field(itemList=[]): "itemList is empty",
    with_field(itemList=["Brazil", "Alien", "Clue"]): "itemList holds 3 titles, expected 4",
    with_field(itemList=["Brazil", "Clue", "Clue", "Diva"]): "itemList holds 'Clue' more than once",
    with_field(itemList=["Alien", "Clue"]): "'Brazil', expected one of its 2 candidates",
    with_field(trueSelection=7): "trueSelection is 7, expected a title",
    with_field(trueSelection=""): "trueSelection is '', expected a title",
    with_field(historyList="Nobody"): "historyList holds 'Nobody', which no",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: BROKEN[broken][:40])
def test_every_kind_of_broken_row_is_named_by_its_line(tmp_path: Path, broken: str) -> None:
    write_rows(tmp_path / "test.jsonl", [*some_rows(2), "", broken, *some_rows(2)])
    with pytest.raises(InputError) as error:
        import_published(config_of(tmp_path))
    assert f"{tmp_path}/test.jsonl:4: " in str(error.value)
    assert BROKEN[broken] in str(error.value)
    assert not (tmp_path / "out").exists()


def test_all_kinds_of_broken_rows_are_set_aside_and_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", [*BROKEN, *some_rows(3)])
    with (tmp_path / "test.jsonl").open("ab") as stream:
        stream.write(b'{"historyList": "\xff"}\n')
    data = imported(tmp_path, malformed="quarantine")
    assert titles_of(data, "test") == [one["historyList"] for one in some_rows(3)]
    lines = (tmp_path / "out/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    found = {line["line"]: line["problem"] for line in map(json.loads, lines)}
    assert data.info["counts"]["quarantined"] == len(lines) == len(BROKEN) + 1
    for line, problem in enumerate(BROKEN.values(), start=1):
        assert problem in found[line]
    assert found[len(BROKEN) + 4] == "not UTF-8"


def test_rows_of_an_array_are_named_by_line_and_number(tmp_path: Path) -> None:
    rows = [*some_rows(2), row(["Alien"], "Brazil") | {"trueSelection": 7}]
    (tmp_path / "test.jsonl").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.jsonl:1: row 3 of the array: trueSelection is 7"):
        import_published(config_of(tmp_path))
    indented = "[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n"
    (tmp_path / "test.jsonl").write_text(indented, encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.jsonl:4: row 3 of the array"):
        import_published(config_of(tmp_path))
    assert len(imported(tmp_path, malformed="quarantine").test) == 2


USABLE = json.dumps(row(["Alien"], "Brazil")).encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[" + USABLE + b",\n{", ":2: row 2 of the array: not JSON"),
        (b"[\n" + b"[" * 100_000, ":2: row 1 of the array: not JSON that can be read"),
        (b"[]\n", ": has no rows"),
        (b"[\n" + USABLE + b" {}]", ":2: row 1 of the array: expected ',' or ']'"),
        (b"[]\n{}", ":1: expected nothing after the array"),
        (b"[\n\xff]", ":2: not UTF-8"),
        (b"", ": has no rows"),
        (json.dumps(some_rows()).encode("utf-16"), ": is UTF-16, expected UTF-8"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "test.jsonl").write_bytes(content)
    with pytest.raises(InputError) as error:
        import_published(config_of(tmp_path))
    assert f"{tmp_path}/test.jsonl{problem}" in str(error.value)


def test_packed_files_and_broken_packed_files(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(some_rows()).encode())
    (tmp_path / "test.jsonl.gz").write_bytes(packed)
    assert len(imported(tmp_path, test=tmp_path / "test.jsonl.gz").test) == 6
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: cannot be read"):
        imported(tmp_path, test=tmp_path / "cut.jsonl.gz", output=tmp_path / "other")


def test_a_file_without_usable_rows_names_its_first_problem(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", ["3", "4"])
    with pytest.raises(InputError, match=r"all 2 rows are unusable.*test\.jsonl:1: is int"):
        imported(tmp_path, malformed="quarantine")


def test_the_separator_is_a_text_of_at_least_one_character(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="separator"):
        load_config(ImportConfig, None, ["train=a", "test=b", f"output={tmp_path}", "separator="])
    names = {"train": "a", "test": "b", "output": tmp_path}
    overrides = [f"{name}={value}" for name, value in names.items()]
    assert load_config(ImportConfig, None, [*overrides, "separator=|"]).separator == "|"
    write_rows(tmp_path / "test.jsonl", [row("Alien|Brazil", "Clue")] * 2)
    assert titles_of(imported(tmp_path, separator="|"), "test")[0] == ["Alien", "Brazil"]


def test_a_test_file_alone_is_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, train=None)
    info = import_data(config)
    assert [info["counts"][split] for split in ("train", "validation", "test")] == [0, 0, 6]
    data = load_dataset(config.output)
    assert titles_of(data, "test") == [one["historyList"] for one in some_rows()]
    # Occurrences in the histories: training sequences, which popularity counts, are not there.
    last = data.test.drop_duplicates("user_id", keep="last")["history"]
    counts = np.bincount(np.concatenate(last.to_list()), minlength=len(TITLES))
    assert counts.sum() > 0 and data.items["popularity"].tolist() == counts.tolist()
    scores = {one["name"]: one["baseline"] for one in info["audit"]["heuristics"]}
    assert "random" in scores and not any(scores.values())
    trained = RecommenderConfig(data=config.output, output=tmp_path / "recommender")
    for action in (
        lambda: train_recommender(trained),
        lambda: evaluate(evaluation_of(config.output, "validation", "random")),
        lambda: evaluate(evaluation_of(config.output, "test", "item-knn")),
    ):
        with pytest.raises(InputError, match=r"out: has no (train|validation) rows, which this"):
            action()
    result = evaluate(evaluation_of(config.output, "test", "random"))
    assert result["likelihood"]["n"] == 6


def evaluation_of(data: Path, split: str, heuristic: str) -> EvaluateConfig:
    settings = {"split": split, "heuristic": heuristic, "num_bootstrap": 10}
    return EvaluateConfig.model_validate(
        settings | {"data": data, "output": data.parent / f"evaluated-{split}-{heuristic}"}
    )

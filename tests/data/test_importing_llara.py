"""Importing LLaRA's files, and the ids that sources give to users and items."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from raypo.audit import audit_summary
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.importing import import_published
from raypo.errors import InputError
from tests.data.published import TITLES, config_of, imported, row, titles_of, write_rows

NAMES = ["Enigma", "Depths of Fear :: Knossos", ":wumpscut:", *TITLES]
FILLER = len(NAMES)


def llara_files(folder: Path, pairs: bool = False) -> dict[str, Path]:
    """Two users' sequences: every row of three or more items, histories filled up to five."""
    rows = []
    for sequence in ([0, 1, 2, 3, 4, 5], [8, 7, 6, 5, 4]):
        for end in range(2, len(sequence)):
            history = sequence[:end] + [FILLER] * (5 - end)
            cells = [(item, 5) for item in history] if pairs else history
            target = (sequence[end], 3) if pairs else sequence[end]
            rows.append({"seq": cells, "len_seq": end, "next": target})
    frame = pd.DataFrame(rows)
    files = {name: folder / f"{name}.df" for name in ("train", "validation", "test")}
    for path in files.values():
        frame.to_pickle(path)
    files["items"] = folder / "id2name.txt"
    lines = [f"{number}::{name}" for number, name in enumerate(NAMES)]
    files["items"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def llara(folder: Path, **options: object) -> Dataset:
    return imported(folder, layout="llara", candidates=3, **options)


@pytest.mark.parametrize("pairs", [False, True])
def test_frames_of_llara_are_imported(tmp_path: Path, pairs: bool) -> None:
    data = llara(tmp_path, **llara_files(tmp_path, pairs))
    assert data.titles == NAMES
    assert data.items["source_id"].tolist() == [str(number) for number in range(len(NAMES))]
    histories = [list(history) for history in data.test["history"]]
    assert histories == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [8, 7, 6], [8, 7, 6, 5]]
    assert data.test["target"].tolist() == [3, 4, 5, 5, 4]
    assert data.train["user_id"].tolist() == [0, 0, 0, 1, 1]
    assert data.info["counts"]["short_histories_left_out"] == 6
    for one in data.test.itertuples():
        assert len(set(one.candidates)) == 3
        assert set(one.candidates) & {*one.history, one.target} == {one.target}


def test_candidates_are_drawn_once_by_the_seed(tmp_path: Path) -> None:
    files = llara_files(tmp_path)
    runs = [
        llara(tmp_path, **files, output=tmp_path / name, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, again, other = (titles_of(data, "test", "candidates") for data in runs)
    assert first == again != other
    assert first != titles_of(runs[0], "validation", "candidates")
    with pytest.raises(InputError, match=r"train\.df:2: candidates: 9 asked for, but only"):
        imported(tmp_path, layout="llara", candidates=9, output=tmp_path / "d", **files)


def test_ids_of_movielens_count_from_one_in_its_list_and_from_zero_in_frames(
    tmp_path: Path,
) -> None:
    files = llara_files(tmp_path, pairs=True) | {"items": tmp_path / "u.item"}
    lines = [f"{number + 1}|{title}|01-Jan-1995||" for number, title in enumerate(
        ["Godfather, The (1972)", "Haine, La (1995)", *(f"Film {n} (1990)" for n in range(7))]
    )]  # fmt: skip
    (tmp_path / "u.item").write_text("\n".join(lines), encoding="latin-1")
    data = llara(tmp_path, **files)
    assert titles_of(data, "test")[0] == ["The Godfather", "La Haine", "Film 0"]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("seq", [1, 99, 3], "id 99 is not among the items"),
        ("seq", 7, "seq is 7, expected a list of ids"),
        ("seq", [1, "x"], "seq holds 'x', expected an id"),
        ("seq", [1, True], "seq holds True, expected an id"),
        ("seq", [FILLER] * 5, "seq is empty"),
        ("next", None, "next holds None, expected an id"),
        ("next", FILLER, f"id {FILLER} is not among the items"),
    ],
)
def test_unusable_rows_of_frames_are_named(
    tmp_path: Path, column: str, value: object, problem: str
) -> None:
    files = llara_files(tmp_path)
    frame = pd.read_pickle(files["test"]).astype({"next": object})
    frame.at[3, column] = value
    frame.to_pickle(files["test"])
    with pytest.raises(InputError) as error:
        llara(tmp_path, **files)
    assert f"{files['test']}:4: {problem}" in str(error.value)
    data = llara(tmp_path, **files, malformed="quarantine")
    assert (data.info["counts"]["quarantined"], len(data.test)) == (1, 4)


def test_files_that_are_not_llaras_are_named(tmp_path: Path) -> None:
    files = llara_files(tmp_path)
    with pytest.raises(InputError, match=r"items: layout=llara needs the list of items"):
        llara(tmp_path, **files | {"items": None})
    files["items"].write_text("0::a\nb\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"id2name\.txt:2: expected an id and a title, got 'b'"):
        llara(tmp_path, **files)
    files["items"].write_text("0::a\n0::b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"id2name\.txt:2: id 0 is already in an earlier line"):
        llara(tmp_path, **files)
    llara_files(tmp_path)
    pd.DataFrame({"seq": [[1]]}).to_pickle(files["test"])
    with pytest.raises(InputError, match=r"test\.df: no column 'next'; its columns are seq"):
        llara(tmp_path, **files)


def identified(history: list[int], target: int, user: str | int) -> dict[str, object]:
    """A row with the source's ids beside its titles."""
    one = row([TITLES[item] for item in history], TITLES[target])
    return one | {
        "user": user,
        "historyIds": [f"id{item}" for item in history],
        "itemIds": [f"id{TITLES.index(title)}" for title in one["itemList"]],
        "targetId": f"id{target}",
    }


ID_FIELDS = {
    "user_field": "user",
    "history_ids_field": "historyIds",
    "candidates_ids_field": "itemIds",
    "target_id_field": "targetId",
}


def test_ids_of_the_source_are_kept(tmp_path: Path) -> None:
    rows = [identified([0, 1], 2, "ann"), identified([3], 4, 17), identified([0], 5, "ann")]
    write_rows(tmp_path / "train.jsonl", rows * 2)
    write_rows(tmp_path / "test.jsonl", [identified([1], 0, "bob"), *rows[:2]])
    config = config_of(tmp_path, **ID_FIELDS)
    info = import_published(config, audit=audit_summary)
    data = load_dataset(config.output)
    assert data.items["source_id"].tolist() == [f"id{TITLES.index(t)}" for t in data.titles]
    users = pd.read_parquet(config.output / "users.parquet")
    assert users.to_dict("list") == {"user_id": [0, 1, 2], "source_id": ["ann", "17", "bob"]}
    assert data.train["user_id"].tolist() == [0, 1, 0, 0, 1]
    assert data.test["user_id"].tolist() == [2, 0, 1]
    assert data.info["counts"]["users"] == 3
    found = [one["what"] for one in info["audit"]["findings"]]
    assert "held-out rows of users with training rows" in found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"user": None}, "user holds None, expected an id"),
        ({"user": 1.5}, "user holds 1.5, expected an id"),
        ({"targetId": True}, "targetId holds True, expected an id"),
        ({"targetId": "id9"}, "'Clue' has the id 'id9' here, but 'id2' before"),
        ({"historyIds": ["id0"]}, "historyIds holds 1 ids of 2 titles"),
        ({"historyIds": 3}, "historyIds is 3, expected ids"),
        ({"historyIds": ["id0", "id2"]}, "id 'id2' belongs to 'Brazil' here, but to 'Clue' before"),
    ],
)
def test_ids_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    good = [identified([0, 1], 2, "ann")] * 2
    write_rows(tmp_path / "train.jsonl", good)
    write_rows(tmp_path / "test.jsonl", [*good, good[0] | changes])
    with pytest.raises(InputError) as error:
        import_published(config_of(tmp_path, **ID_FIELDS))
    assert f"{tmp_path}/test.jsonl:3: {problem}" in str(error.value)
    data = imported(tmp_path, **ID_FIELDS, malformed="quarantine")
    assert (data.info["counts"]["quarantined"], len(data.test)) == (1, 2)


def test_a_file_of_items_gives_ids_and_knows_titles(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", [row("Alien::Nobody :: Else", "Brazil")])
    (tmp_path / "items.csv").write_text(
        "movie,name\n7,Nobody :: Else\n8,Alien\n9,Unused\n", encoding="utf-8"
    )
    options = {"item_field": "movie", "title_field": "name", "train": None}
    data = imported(tmp_path, items=tmp_path / "items.csv", **options)
    assert titles_of(data, "test") == [["Alien", "Nobody :: Else"]]
    assert data.items["source_id"].tolist() == ["8", "7", "Brazil", "Clue", "Diva"]
    assert json.loads((tmp_path / "out/dataset.json").read_text())["source"]["items"]["sha256"]
    (tmp_path / "items.csv").write_text("movie,name\n7,Alien\n8,Alien\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"items\.csv: 'Alien' has the id '8' here, but '7'"):
        imported(tmp_path, items=tmp_path / "items.csv", output=tmp_path / "b", **options)

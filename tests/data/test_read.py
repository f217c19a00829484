from __future__ import annotations

import time
from pathlib import Path

import pytest

from raypo.config import InputError
from raypo.data.read import read_atomic, read_interactions, read_items

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "some.atomic"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def interactions(path: Path) -> object:
    return read_interactions(path, "user_id", "item_id", "timestamp")


def items(path: Path) -> object:
    return read_items(path, "item_id", "movie_title", "release_year")


def test_columns_come_as_text_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, ITEM.replace("\n", "\r\n") + "007\tCité\u2028x, La\t1995\r\n8\tB\t\r\n")
    frame = read_atomic(path, ["movie_title", "item_id"])
    assert frame.to_dict("list") == {
        "movie_title": ["Cité\u2028x, La", "B"],
        "item_id": ["007", "8"],
        "line": [2, 3],
    }


def test_one_column_may_serve_twice(tmp_path: Path) -> None:
    frame = read_items(write(tmp_path, ITEM + "7\tA\t1\n"), "movie_title", "movie_title", None)
    assert frame.to_dict("list") == {"item": ["A"], "title": ["A"], "year": [""], "line": [2]}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (items, "", "expected a header and at least one row, got 0 lines"),
        (items, ITEM, "expected a header and at least one row, got 1 lines"),
        (items, "item_id:token\tname:token\n1\tA\n", "'movie_title'.*item_id, name"),
        (items, "item_id:token\titem_id:token\tmovie_title:t\trelease_year:t\n\n", ":1: .*item_id"),
        (items, ITEM + "1\tA\t1995\n2\tB\n", ":3: expected 3 fields, got 2"),
        (items, ITEM + "1\tA\t1995\t\n", ":2: expected 3 fields, got 4"),
        (items, ITEM + "1\tA\t1995\n\n2\tB\t1\n", ":3: expected 3 fields, got 1"),
        (items, ITEM + "1\tA\t1995\n2\t \t1995\n", ":3: movie_title is empty"),
        (items, ITEM + "\tA\t1995\n", ":2: item_id is empty"),
        (items, ITEM + "1\tA\t1\n2\tB\t1\n1\tC\t1\n", ":4: item_id '1' .*line 2"),
        (items, ITEM.encode() + b"1\tA\t1\n2\tCit\xe9\t1\n", ":3: not UTF-8"),
        (interactions, INTER + "1\t1\t3\t5\n1\t2\t3\tsoon\n", ":3: timestamp is 'soon'"),
        (interactions, INTER + "1\t1\t3\t\n", ":2: timestamp is ''"),
        (interactions, INTER + "1\t1\t3\tnan\n", ":2: timestamp is 'nan'"),
        (interactions, INTER + "1\t1\t3\tinf\n", ":2: timestamp is 'inf'"),
        (interactions, INTER + "1\t1\t3\t1e300\n", ":2: timestamp is '1e300'"),
        (interactions, INTER + " \t1\t3\t1\n", ":2: user_id is empty"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, read: object, content: str | bytes, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        read(path)  # type: ignore[operator]
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        items(tmp_path / "absent.item")
    with pytest.raises(InputError, match="cannot be read"):
        items(tmp_path)


def test_a_hundred_thousand_rows_are_quick(tmp_path: Path) -> None:
    path = write(tmp_path, INTER + "".join(f"{i % 900}\t{i}\t3\t{i}\n" for i in range(100_000)))
    start = time.process_time()
    assert len(read_interactions(path, "user_id", "item_id", "timestamp")) == 100_000
    assert time.process_time() - start < 2

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypo.data.readers import (
    ItemColumns,
    LogColumns,
    RejectedRows,
    log_reader,
    read_interactions,
    read_items,
)
from raypo.data.readers.formats import FORMATS, find_format
from raypo.data.readers.records import read_columns
from raypo.data.readers.sources import Source, resolve_sources
from raypo.data.readers.times import (
    AS_THEY_ARE,
    PER_SECOND,
    TimesInUnit,
    count_units,
    guess_time_format,
    parse_times,
    units_of_files,
)
from raypo.errors import InputError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\n"
IN_ONE_FOLDER = [HealthCheck.function_scoped_fixture]


def write(folder: Path, content: str | bytes, name: str = "some.inter") -> Source:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return resolve_sources([str(path)])[0]


def log_of(
    source: Source | Sequence[Source], rejected: RejectedRows | None = None, **options: object
) -> pd.DataFrame:
    sources = [source] if isinstance(source, Source) else list(source)
    reader = log_reader(sources, LogColumns(**options))  # type: ignore[arg-type]
    bad = rejected or RejectedRows()
    nothing = pd.DataFrame({"user": pd.Series(dtype=str), "item": pd.Series(dtype=str), "time": []})
    chunks = [chunk for one in sources for chunk in read_interactions(one, reader, bad)]
    return pd.concat(chunks, ignore_index=True) if chunks else nothing


def items_of(source: Source, **options: object) -> pd.DataFrame:
    named = {"title": "movie_title", "year": "release_year"} | options
    return read_items([source], RejectedRows(), ItemColumns(**named))  # type: ignore[arg-type]


def catalogue(source: Source) -> pd.DataFrame:
    return items_of(source, form="atomic")


def test_columns_come_as_text_with_their_lines(tmp_path: Path) -> None:
    content = ITEM.replace("\n", "\r\n") + "007\tCité\u2028x, La\t1995\r\n8\tB\t\r\n"
    source = write(tmp_path, content)
    columns = ["movie_title", "item_id"]
    (frame,) = read_columns(source, FORMATS["atomic"], columns, RejectedRows())
    assert frame.to_dict("list") == {
        "movie_title": ["Cité\u2028x, La", "B"],
        "item_id": ["007", "8"],
        "line": [2, 3],
    }


def test_one_column_may_serve_twice(tmp_path: Path) -> None:
    source = write(tmp_path, ITEM + "7\tA\t1\n", "x.item")
    frame = read_items(
        [source], RejectedRows(), ItemColumns(item="movie_title", title="movie_title")
    )
    assert frame[["item", "title", "year"]].to_dict("list") == {
        "item": ["A"],
        "title": ["A"],
        "year": [""],
    }


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (catalogue, "", "expected a header and at least one row, it is empty"),
        (catalogue, ITEM, "expected at least one row, it has none"),
        (catalogue, "item_id:token\tname:token\n1\tA\n", "'movie_title'.*item_id, name"),
        (catalogue, "item_id:t\titem_id:t\tmovie_title:t\trelease_year:t\n\n", ":1: .*item_id"),
        (catalogue, ITEM + "1\tA\t1995\n2\tB\n", ":3: expected 3 fields, got 2"),
        (catalogue, ITEM + "1\tA\t1995\t\n", ":2: expected 3 fields, got 4"),
        (catalogue, ITEM + "1\tA\t1995\n\n2\tB\t1\n", ":3: expected 3 fields, got 1"),
        (catalogue, ITEM + "1\tA\t1995\n2\t \t1995\n", ":3: movie_title is empty"),
        (catalogue, ITEM + "\tA\t1995\n", ":2: item_id is empty"),
        (catalogue, ITEM + "1\tA\t1\n2\tB\t1\n1\tC\t1\n", ":4: item '1' .*line 2"),
        (catalogue, ITEM.encode() + b"1\tA\t1\n2\tCit\xe9\t1\n", ":3: not UTF-8"),
        (log_of, INTER + "1\t1\t3\t5\n1\t2\t3\tsoon\n", ":3: timestamp is 'soon'"),
        (log_of, INTER + "1\t1\t3\t1\n1\t1\t3\t\n", ":3: timestamp is ''"),
        (log_of, INTER + "1\t1\t3\tnan\n1\t1\t3\t1\n", ":2: timestamp is 'nan'"),
        (log_of, INTER + "1\t1\t3\t1\n1\t1\t3\tinf\n", ":3: timestamp is 'inf'"),
        (log_of, INTER + "1\t1\t3\t1\n1\t1\t3\t1e300\n", ":3: timestamp is '1e300'"),
        (log_of, INTER + " \t1\t3\t1\n", ":2: user_id is empty"),
        (log_of, INTER + "1\t\t3\t1\n", ":2: item_id is empty"),
    ],
)
def test_unusable_files_and_rows_are_named(
    tmp_path: Path, read: object, content: str | bytes, message: str
) -> None:
    source = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        read(source)  # type: ignore[operator]
    assert source.location in str(error.value)


def test_missing_files_folders_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.item: no such file"):
        resolve_sources([str(tmp_path / "absent.item")])
    with pytest.raises(InputError, match=r"\*\.csv: no file matches"):
        resolve_sources([str(tmp_path / "*.csv")])
    with pytest.raises(InputError, match="is a folder"):
        resolve_sources([str(tmp_path)])
    source = write(tmp_path, "x", "log.xyz")
    with pytest.raises(InputError, match=r"log\.xyz: its name does not show its format"):
        find_format("auto", source)
    with pytest.raises(InputError, match="format 'exel': unknown"):
        find_format("exel", source)
    with pytest.raises(InputError, match="nowhere://x: cannot be read"):
        resolve_sources(["nowhere://x"])


def test_globs_are_read_in_the_order_of_their_names_and_urls_like_paths(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path, INTER + f"{name}\ti\t1\t1\n", f"{name}.inter")
    found = resolve_sources([str(tmp_path / "*.inter")])
    assert [source.name for source in found] == ["a.inter", "b.inter", "c.inter"]
    (url,) = resolve_sources([f"file://{tmp_path}/a.inter"])
    assert log_of(url)["user"].tolist() == ["a"]
    import fsspec

    with fsspec.open("memory://logs/x.inter", "w") as stream:
        stream.write(INTER + "m\ti\t1\t1\n")
    assert log_of(resolve_sources(["memory://logs/*.inter"]))["user"].tolist() == ["m"]


def test_packed_files_are_unpacked_and_broken_ones_named(tmp_path: Path) -> None:
    packed = gzip.compress((INTER + "u\ti\t1\t1\n").encode())
    assert log_of(write(tmp_path, packed, "x.inter.gz"))["user"].tolist() == ["u"]
    with pytest.raises(InputError, match=r"y\.inter\.gz: cannot be read"):
        log_of(write(tmp_path, packed[:-12], "y.inter.gz"))
    with pytest.raises(InputError, match=r"z\.inter\.gz: cannot be read"):
        log_of(write(tmp_path, b"not gzip", "z.inter.gz"))
    with pytest.raises(InputError, match=r"z\.parquet: cannot be read"):
        log_of(write(tmp_path, b"not parquet", "z.parquet"))


def test_formats_agree(tmp_path: Path) -> None:
    """The same log through every format is the same log."""
    rows = [("1", "10", "4.0", "86400"), ("2", "11", "3.0", "172800")]
    names = ["user_id", "item_id", "rating", "timestamp"]
    tabs = "\n".join("\t".join(row) for row in rows) + "\n"
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    table = pa.table(
        {
            "user_id": pa.array([1, 2]),
            "item_id": pa.array([10, 11]),
            "rating": pa.array([4.0, 3.0]),
            "timestamp": pa.array([86_400_000, 172_800_000], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    utc, pacific = "Fri Jan 02 00:00:00 +0000 1970", "Fri Jan 02 16:00:00 -0800 1970"
    goodreads = [
        {"user_id": "1", "book_id": "10", "rating": 4, "date_added": utc},
        {"user_id": "2", "book_id": "11", "rating": 3, "date_added": pacific},
    ]
    steam = [
        {"username": "1", "product_id": "10", "hours": 4.0, "date": "1970-01-02"},
        {"username": "2", "product_id": "11", "hours": 3.0, "date": "1970-01-03"},
    ]
    files = {
        "log.inter": (INTER + tabs, "auto"),
        "log.tsv": ("\t".join(names) + "\n" + tabs, "auto"),
        "log.csv": (",".join(names) + "\n" + tabs.replace("\t", ","), "auto"),
        "u.data": (tabs, "auto"),
        "ratings.dat": (tabs.replace("\t", "::"), "auto"),
        "ratings.csv": ("userId,movieId,rating,timestamp\n" + tabs.replace("\t", ","), "auto"),
        "log.json": ("".join(json.dumps(one) + "\n" for one in objects), "auto"),
        "goodreads.json": ("".join(json.dumps(one) + "\n" for one in goodreads), "goodreads"),
        "steam.json": ("".join(f"{one!r}\n" for one in steam), "steam-reviews"),
    }
    sources = [(write(tmp_path, content, name), form) for name, (content, form) in files.items()]
    sources.append((resolve_sources([str(tmp_path / "log.parquet")])[0], "auto"))
    for source, form in sources:
        frame = log_of(source, form=form, with_rating=True)
        found = frame[["user", "item", "time", "rating"]].to_dict("list")
        assert found == {
            "user": ["1", "2"],
            "item": ["10", "11"],
            "time": [86400.0, 172800.0],
            "rating": [4.0, 3.0],
        }, source.name


def test_lastfm_tags_have_their_date_in_three_columns(tmp_path: Path) -> None:
    header = "userID\tartistID\ttagID\tday\tmonth\tyear\r\n"
    source = write(tmp_path, header + "2\t52\t13\t1\t4\t2009\r\n", "user_taggedartists.dat")
    frame = log_of(source)
    assert frame["time"].tolist() == [pd.Timestamp("2009-04-01", tz="UTC").timestamp()]
    bad = write(tmp_path, header + "2\t52\t13\t31\t2\t2009\r\n", "user_taggedartists.dat")
    with pytest.raises(InputError, match="year-month-day is '2009-02-31', expected a time"):
        log_of(bad)


def test_movielens_catalogues_and_categories(tmp_path: Path) -> None:
    flags = "|".join(["0"] * 19)
    line = f"1|Cité des enfants perdus, La (1995)|01-Jan-1995||http://x|{flags}\n"
    source = write(tmp_path, line.encode("latin-1"), "u.item")
    assert read_items([source], RejectedRows(), ItemColumns())["title"].tolist() == [
        "Cité des enfants perdus, La (1995)"
    ]
    for encoding in ("latin-1", "utf-8"):
        content = "1::Café (1990)::Comedy|Drama\n".encode(encoding)
        frame = read_items(
            [write(tmp_path, content, "movies.dat")],
            RejectedRows(),
            ItemColumns(with_category=True),
        )
        assert frame[["title", "category"]].values.tolist() == [["Café (1990)", "Comedy"]]


def test_python_literals_are_parsed_and_never_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "evaluated"
    lines = [
        "{u'username': u'a', 'product_id': '1', 'date': '2017-01-02', 'text': u'l\\xe9'}",
        f"__import__('pathlib').Path({str(marker)!r}).touch()",
        "[" * 500,
        "'a text'",
    ]
    rejected = RejectedRows("quarantine")
    source = write(tmp_path, "\n".join(lines) + "\n", "steam_reviews.json")
    frame = log_of(source, rejected, form="steam-reviews")
    assert frame["user"].tolist() == ["a"]
    assert not marker.exists()
    assert [row.line for row in rejected.rows] == [2, 3, 4]


@pytest.mark.parametrize(
    ("texts", "form", "seconds"),
    [
        (["0", "-1", "1.5"], "numbers", [0, -1, 1.5]),
        (["1500000000000", "1500000000500"], "numbers", [1.5e12, 1.5e12 + 500]),
        (["1500000000000000001"], "numbers", [1.5e18]),
        (
            ["1970-01-02", "1969-12-31T23:59:59Z", "1970-01-01 01:00:00+01:00"],
            "iso",
            [86400, -1, 0],
        ),
        (["1970-01-01 00:00:00.25"], "iso", [0.25]),
    ],
)
def test_times_are_recognised_and_read(texts: list[str], form: str, seconds: list[float]) -> None:
    series = pd.Series(texts)
    assert guess_time_format(series) == form
    assert parse_times(series, form).tolist() == seconds


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.inter", "log.jsonl", "log.jsonl.gz"])
def test_files_of_utf16_are_refused(tmp_path: Path, name: str) -> None:
    content = INTER.encode("utf-16")
    source = write(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    with pytest.raises(InputError, match=f"{name}: is UTF-16, expected UTF-8; convert it"):
        log_of(source)


@pytest.mark.parametrize("depth", [600, 900, 940, 980, 100_000])
def test_deeply_nested_values_are_rejected(tmp_path: Path, depth: int) -> None:
    line = '{"user_id": ' + "[" * depth + "]" * depth + ', "item_id": "i", "timestamp": 1}\n'
    rejected = RejectedRows("quarantine")
    log_of(write(tmp_path, line, "log.jsonl"), rejected)
    assert [row.line for row in rejected.rows] == [1]


@pytest.mark.parametrize("unit", list(PER_SECOND))
def test_units_of_times_are_converted(unit: str) -> None:
    seconds = [946684800.25, 1500000000.5, 1767225600.0]
    texts = pd.Series([f"{value * PER_SECOND[unit]:.2f}" for value in seconds])
    assert parse_times(texts, unit).tolist() == pytest.approx(seconds, abs=1e-6)
    assert parse_times(texts, "mixed").tolist() == pytest.approx(seconds, abs=1e-6)
    counts: dict[str, TimesInUnit] = {}
    lines = np.array([2, 3, 4])
    count_units(counts, parse_times(texts, "numbers"), lines)
    assert {name: (one["count"], one["line"]) for name, one in counts.items()} == {unit: (3, 2)}
    assert units_of_files(["a", "b"], [counts, {}]) == [unit, unit]


def test_small_numbers_are_kept_as_they_are() -> None:
    counts: dict[str, TimesInUnit] = {}
    count_units(counts, np.array([0.0, -5, 1e8, 1e11, np.nan]), np.arange(5))
    assert units_of_files(["a"], [counts]) == [AS_THEY_ARE]
    assert parse_times(pd.Series(["7", "0"]), "mixed").tolist() == [7, 0]


def test_time_patterns_and_an_invalid_format(tmp_path: Path) -> None:
    assert parse_times(pd.Series(["2.1.1970 01:00", "x"]), "%d.%m.%Y %H:%M").tolist()[0] == 90000
    source = write(tmp_path, INTER + "u\ti\t1\t1\n")
    with pytest.raises(InputError, match="time_format 'minutes': expected auto, seconds"):
        log_of(source, time_format="minutes")


def test_unusable_rows_are_collected_with_file_and_line(tmp_path: Path) -> None:
    content = INTER.encode() + (
        b"u\ti\t1\t1\nshort\t1\nu\ti\t1\tnever\n\xff\ti\t1\t2\nu\tj\tx\t3\n"
    )
    source = write(tmp_path, content)
    rejected = RejectedRows("quarantine")
    frame = log_of(source, rejected, with_rating=True)
    assert frame[["user", "line"]].values.tolist() == [["u", 2]]
    assert sorted((row.line, row.problem) for row in rejected.rows) == [
        (3, "expected 4 fields, got 2"),
        (4, "timestamp is 'never', expected a number (below 2^53)"),
        (5, "not UTF-8"),
        (6, "rating is 'x', expected a number"),
    ]
    assert all(row.file == source.location for row in rejected.rows)


def test_quotes_separators_and_line_ends_inside_fields(tmp_path: Path) -> None:
    content = (
        '\ufeffitem_id,title\r\n1,"A, ""quoted""\nand broken"\n2,שלום 🎬\r3,"x"\r\n'
        '\r\n4,a"b\n"5,c\n6,d'
    )
    rejected = RejectedRows("quarantine")
    source = write(tmp_path, content, "items.csv")
    frame = read_items([source], rejected, ItemColumns())
    assert frame["title"].tolist() == ['A, "quoted"\nand broken', "שלום 🎬", "x", 'a"b']
    (bad,) = rejected.rows
    assert bad.line == 8
    assert "quotes are broken" in bad.problem


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
ids = text.filter(lambda value: value.strip() != "")
cells = st.tuples(ids, ids, st.integers(-(2**40), 2**40))


@settings(suppress_health_check=IN_ONE_FOLDER, deadline=None)
@given(st.lists(cells, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_csv_gives_back_any_text(
    tmp_path: Path, rows: list[tuple[str, str, int]], end: str
) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("user_id", "item_id", "timestamp"), *rows])
    frame = log_of(write(tmp_path, stream.getvalue(), "log.csv"), time_format="seconds")
    assert list(zip(frame["user"], frame["item"], frame["time"], strict=True)) == rows


@settings(suppress_health_check=IN_ONE_FOLDER, deadline=None)
@given(st.lists(cells, min_size=1, max_size=12))
def test_json_lines_give_back_any_text(tmp_path: Path, rows: list[tuple[str, str, int]]) -> None:
    lines = [json.dumps(dict(user_id=u, item_id=i, timestamp=t)) for u, i, t in rows]
    frame = log_of(write(tmp_path, "\n".join(lines), "log.jsonl"), time_format="seconds")
    assert list(zip(frame["user"], frame["item"], frame["time"], strict=True)) == rows


@pytest.mark.parametrize("form", [name for name in FORMATS if FORMATS[name].kind != "parquet"])
@settings(suppress_health_check=IN_ONE_FOLDER, deadline=None, max_examples=25)
@given(noise=st.randoms(use_true_random=False), garbage=st.binary(max_size=60))
def test_no_bytes_break_a_reader(
    tmp_path: Path, form: str, noise: random.Random, garbage: bytes
) -> None:
    """Any content of a file gives rows, rejected rows, or an error that names the file."""
    found = FORMATS[form]
    columns = [found.user, found.item, "rating", "timestamp", "year", "month", "day", "date"]
    names = found.names or tuple(columns)
    if found.kind in ("json", "literal"):
        value = {name: str(k) for k, name in enumerate(columns)}
        valid = [json.dumps(value), repr(value)]
    else:
        valid = [found.separator.join(names), found.separator.join("1" for _ in names)]
    content = bytearray("\n".join(valid * 3).encode())
    for _ in range(noise.randrange(4)):
        content[noise.randrange(len(content))] = noise.randrange(256)
    at = noise.randrange(len(content) + 1)
    content[at:at] = garbage
    source = write(tmp_path, bytes(content), "log.bin")
    rejected = RejectedRows("quarantine")
    try:
        frame = log_of(source, rejected, form=form)
    except InputError as error:
        assert source.location in str(error)
        return
    assert np.isfinite(frame["time"]).all()
    assert (frame["user"].str.strip() != "").all()
    assert (frame["item"].str.strip() != "").all()
    assert all(row.file == source.location and row.line > 0 for row in rejected.rows)


def test_no_line_is_dropped_silently(tmp_path: Path) -> None:
    """Every line of a plain file is a row or is rejected."""
    noise = random.Random(3)
    lines = ["\t".join("ab"[noise.randrange(2)] for _ in range(noise.choice([3, 4, 4, 5])))
             for _ in range(500)]  # fmt: skip
    lines = [line if noise.random() < 0.5 else line[:-1] + "7" for line in lines]
    rejected = RejectedRows("quarantine")
    frame = log_of(write(tmp_path, INTER + "\n".join(lines) + "\n"), rejected)
    seen = sorted([*frame["line"].tolist(), *(row.line for row in rejected.rows)])
    assert seen == list(range(2, 502))
    assert len(frame) > 50


def test_several_formats_at_once_are_refused(tmp_path: Path) -> None:
    sources = [write(tmp_path, INTER, "a.inter"), write(tmp_path, "user_id", "b.csv")]
    with pytest.raises(InputError, match="files of several formats"):
        log_reader(sources, LogColumns())


def test_a_hundred_thousand_rows_are_quick(tmp_path: Path) -> None:
    source = write(tmp_path, INTER + "".join(f"{i % 900}\t{i}\t3\t{i}\n" for i in range(100_000)))
    start = time.process_time()
    assert len(log_of(source)) == 100_000
    assert time.process_time() - start < 3

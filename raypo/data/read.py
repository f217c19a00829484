"""Readers of raw logs. Whatever is wrong is reported with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from raypo.config import InputError

_MAXIMUM_TIME = 2.0**53  # beyond it float64 no longer holds every integer


def read_atomic(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a RecBole atomic file: tab-separated, header of `name:type` fields.

    Returns:
        The columns as text, as they stand in the file, with a column `line` (from 2).

    Raises:
        InputError: unreadable, no such column, or a line with too many or too few fields.
    """
    lines = _lines(path)
    if len(lines) < 2:
        raise InputError(f"{path}: expected a header and at least one row, got {len(lines)} lines")
    names = [field.partition(":")[0] for field in lines[0].split("\t")]
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}; its columns are {', '.join(names)}")
    repeated = [column for column in columns if names.count(column) > 1]
    if repeated:
        raise InputError(f"{path}:1: column {repeated[0]!r} stands there more than once")
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise InputError(f"{path}:{number}: expected {len(names)} fields, got {len(row)}")
    frame = pd.DataFrame(rows, columns=names, dtype=str)[list(dict.fromkeys(columns))]
    frame["line"] = range(2, len(rows) + 2)
    return frame


def read_interactions(path: Path, user: str, item: str, time: str) -> pd.DataFrame:
    """Interactions as columns user, item (text), time (float64), line.

    Raises:
        InputError: as `read_atomic`, or a time that is not a number, or an empty id.
    """
    frame = read_atomic(path, [user, item, time])
    columns = {"user": frame[user], "item": frame[item], "time": frame[time]}
    frame = pd.DataFrame({**columns, "line": frame["line"]})
    times = pd.to_numeric(frame["time"], errors="coerce").astype("float64")
    usable = times.notna() & times.abs().lt(_MAXIMUM_TIME)
    if not usable.all():
        bad = frame[~usable].iloc[0]
        raise InputError(
            f"{path}:{bad['line']}: {time} is {bad['time']!r}, expected a number (below 2^53)"
        )
    frame["time"] = times
    for column, name in (("user", user), ("item", item)):
        _refuse_empty(path, frame, column, name)
    return frame


def read_items(path: Path, item: str, title: str, year: str | None) -> pd.DataFrame:
    """Items as columns item, title, year (empty where there is none), line.

    Raises:
        InputError: as `read_atomic`, or an id that stands twice, or an empty id or title.
    """
    frame = read_atomic(path, [item, title, *([year] if year else [])])
    columns = {"item": frame[item], "title": frame[title], "year": frame[year] if year else ""}
    frame = pd.DataFrame({**columns, "line": frame["line"]})
    _refuse_empty(path, frame, "item", item)
    _refuse_empty(path, frame, "title", title)
    repeated = frame[frame["item"].duplicated()]
    if len(repeated):
        second = repeated.iloc[0]
        first = frame[frame["item"] == second["item"]].iloc[0]
        raise InputError(
            f"{path}:{second['line']}: {item} {second['item']!r} stands already in line "
            f"{first['line']}; ids must be distinct"
        )
    return frame


def _lines(path: Path) -> list[str]:
    """The file's lines; line feeds alone part them, other separators may stand in a title."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 ({error.reason})") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _refuse_empty(path: Path, frame: pd.DataFrame, column: str, name: str) -> None:
    empty = frame[frame[column].str.strip() == ""]
    if len(empty):
        raise InputError(f"{path}:{empty.iloc[0]['line']}: {name} is empty")

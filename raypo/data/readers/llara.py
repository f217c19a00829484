"""The files that LLaRA publishes: pickled data frames of item ids, and a list of items."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypo.config.paths import uri
from raypo.data.readers.json_rows import SourceRow
from raypo.data.readers.pickled_frames import read_pickled_frame
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.readers.sources import refuse_utf16
from raypo.data.titles import display_titles
from raypo.errors import InputError

SHORTEST = 3  # items of a history, in LLaRA's own reader
_YEAR = re.compile(r"^(.*) \((\d{4})\)$")


@dataclass(frozen=True)
class LlaraRow:
    """A row of item ids.

    Attributes:
        source: where it comes from.
        history, target: ids; those that fill up a short history are left out.
    """

    source: SourceRow
    history: list[int]
    target: int


def read_llara_items(path: Path) -> dict[int, str]:
    """Distinct titles by id.

    Args:
        path: `id2name.txt`, with lines of `id::name`, or MovieLens' `u.item`, whose ids count from
            1 where the frames count from 0.

    Raises:
        InputError: the file cannot be read, or a line is none of an item.
    """
    file = uri(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    refuse_utf16(content, file)
    movielens = path.name == "u.item"
    try:
        text = content.decode("latin-1" if movielens else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: not UTF-8") from None
    names: dict[int, str] = {}
    for number, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        key, _, rest = row.partition("|" if movielens else "::")
        name = rest.partition("|")[0] if movielens else rest
        if not key.strip().isdecimal() or not name.strip():
            shown = row.rstrip()[:200]
            raise InputError(f"{file}:{number}: expected an id and a title, got {shown!r}")
        item = int(key) - movielens
        if item in names:
            raise InputError(f"{file}:{number}: id {key.strip()} is already in an earlier line")
        names[item] = name.strip()
    if not names:
        raise InputError(f"{file}: has no items")
    return dict(zip(names, _distinct(list(names.values()), movielens), strict=True))


def _distinct(names: list[str], movielens: bool) -> list[str]:
    """Titles; MovieLens' without the year, and with articles in front, as LLaRA shows them."""
    if not movielens:
        return display_titles(names, None, clean=False)
    found = [_YEAR.match(name) for name in names]
    titles = [match[1] if match else name for match, name in zip(found, names, strict=True)]
    return display_titles(titles, [match[2] if match else "" for match in found])


def read_llara_rows(
    path: Path, items: Mapping[int, str], rejected: RejectedRows
) -> tuple[list[LlaraRow], int]:
    """Rows of a pickled frame with the columns `seq`, `next` and `len_seq`.

    Cells are ids, or pairs of an id and a rating. Short histories are filled up with the id after
    the last item's.

    Args:
        path: of the frame.
        items: titles by id.
        rejected: collects rows whose ids are none.

    Returns:
        Usable rows, and how many were left out because `len_seq` is below 3, as LLaRA does.

    Raises:
        InputError: the file is no frame of this kind, or a row is unusable and the policy is
            `stop`.
    """
    frame = read_pickled_frame(path)
    missing = [column for column in ("seq", "next", "len_seq") if column not in frame]
    if missing:
        raise InputError(
            f"{uri(path)}: no column {missing[0]!r}; its columns are {', '.join(frame)}"
        )
    rows: list[LlaraRow] = []
    short = 0
    for source in _source_rows(path, frame):
        length = source.values["len_seq"]
        if isinstance(length, int) and length < SHORTEST:
            short += 1
            continue
        try:
            rows.append(_row(source, items))
        except ValueError as problem:
            source.reject(str(problem), rejected)
    return rows, short


def _source_rows(path: Path, frame: Mapping[str, list[Any]]) -> Iterator[SourceRow]:
    """Rows of the frame; a pickle has no lines, so rows are numbered from 1."""
    columns = ("seq", "next", "len_seq")
    for number, cells in enumerate(zip(*(frame[name] for name in columns), strict=True), start=1):
        values = dict(zip(columns, cells, strict=True))
        content = json.dumps(values, ensure_ascii=False, default=str)
        yield SourceRow(uri(path), number, "", values, content)


def _row(source: SourceRow, items: Mapping[int, str]) -> LlaraRow:
    cells = source.values["seq"]
    if not isinstance(cells, list):
        raise ValueError(f"seq is {cells!r}, expected a list of ids")
    filler = max(items) + 1
    history = [item for item in (_id(cell, "seq") for cell in cells) if item != filler]
    target = _id(source.values["next"], "next")
    unknown = [item for item in [*history, target] if item not in items]
    if unknown:
        raise ValueError(f"id {unknown[0]} is not among the items")
    if not history:
        raise ValueError("seq is empty")
    return LlaraRow(source, history, target)


def _id(cell: Any, column: str) -> int:
    """The id in a cell: itself, or the first of a pair of id and rating."""
    value = cell[0] if isinstance(cell, list) and cell else cell
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{column} holds {cell!r}, expected an id")
    return value

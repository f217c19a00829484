"""The catalogue: ids and titles, and what tells items of one title apart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from raypo.config import InputError
from raypo.data.readers.formats import find_format
from raypo.data.readers.records import read_columns
from raypo.data.readers.rejected_rows import Malformed
from raypo.data.readers.sources import Source


def read_items(
    sources: Sequence[Source],
    malformed: Malformed,
    form: str = "auto",
    item: str | None = None,
    title: str | None = None,
    year: str | None = None,
    category: str | None = None,
    with_category: bool = False,
) -> pd.DataFrame:
    """Items as columns item, title, year, category (empty where there is none).

    Args:
        sources: the files.
        malformed: what becomes of rows with an empty id or title, or an id that stands already.
        form: name of the format, or `auto`.
        item: column; None takes the format's own, likewise the next three.
        title: column.
        year: column, for most formats none.
        category: column.
        with_category: whether categories are read; an item's first one counts.

    Raises:
        InputError: unreadable, no such column, no item at all; or a malformed row where those stop.
    """
    frames = []
    for source in sources:
        found = find_format(form, source)
        named = {"item": item or found.item, "title": title or found.title}
        if year or found.year:
            named["year"] = str(year or found.year)
        if with_category:
            named["category"] = _category(category or found.category, source)
        for chunk in read_columns(source, found, list(named.values()), malformed):
            frame = pd.DataFrame({name: chunk[column] for name, column in named.items()})
            frame = frame.assign(line=chunk["line"], file=source.location)
            _set_aside_empty(frame, named, malformed)
            if with_category:
                first = frame["category"].str.split(found.category_separator, regex=False).str[0]
                frame["category"] = first.str.strip()
            frames.append(frame[(frame["item"].str.strip() != "") & _has_title(frame)])
    if not frames:
        raise InputError(f"{sources[0].location}: holds no usable item")
    items = pd.concat(frames, ignore_index=True)
    items = _set_aside_repeated(items, sources, malformed, item)
    if items.empty:
        raise InputError(f"{sources[0].location}: holds no usable item")
    for column in ("year", "category"):
        if column not in items:
            items[column] = ""
    return items[["item", "title", "year", "category"]]


def _category(column: str | None, source: Source) -> str:
    if column is None:
        raise InputError(f"{source.location}: category_field: name the column of categories")
    return column


def _has_title(frame: pd.DataFrame) -> pd.Series:
    return frame["title"].str.strip() != ""


def _set_aside_empty(frame: pd.DataFrame, named: dict[str, str], malformed: Malformed) -> None:
    for name in ("item", "title"):
        for row in frame[frame[name].str.strip() == ""].itertuples():
            if name == "title" and not str(row.item).strip():
                continue  # told already
            content = f"{row.item}\t{row.title}"
            malformed.add(str(row.file), int(str(row.line)), f"{named[name]} is empty", content)


def _set_aside_repeated(
    items: pd.DataFrame, sources: Sequence[Source], malformed: Malformed, item: str | None
) -> pd.DataFrame:
    repeated = items["item"].duplicated()
    if repeated.any():
        firsts = items[~repeated].set_index("item")["line"]
        for row in items[repeated].itertuples():
            malformed.add(
                str(row.file),
                int(str(row.line)),
                f"{item or 'item'} {row.item!r} stands already in line {firsts[row.item]}; "
                "ids must be distinct",
                f"{row.item}\t{row.title}",
            )
    return items[~repeated].reset_index(drop=True)

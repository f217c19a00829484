"""Reading the catalogue: ids, titles, and the year that distinguishes items of one title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from raypo.data.readers.formats import find_format
from raypo.data.readers.records import read_columns
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.readers.sources import Source
from raypo.errors import InputError

OTHER = "other "


@dataclass(frozen=True)
class ItemColumns:
    """Format and columns of a catalogue.

    Attributes:
        form: name of the format, or `auto`.
        item, title, year, category: columns; None takes the format's own.
        with_category: whether categories are read; an item's first one is used.
        others: columns to read as they are.
    """

    form: str = "auto"
    item: str | None = None
    title: str | None = None
    year: str | None = None
    category: str | None = None
    with_category: bool = False
    others: tuple[str, ...] = ()


def read_items(
    sources: Sequence[Source], rejected: RejectedRows, columns: ItemColumns
) -> pd.DataFrame:
    """Read items as columns item, title, year, category (empty if there is none).

    Other columns have the prefix OTHER before their names.

    Args:
        sources: the files.
        rejected: collects rows with an empty id or title, or the id of an earlier row.
        columns: what to read.

    Raises:
        InputError: a file cannot be read, lacks a column or has no item, or a row is unusable and
            the policy is `stop`.
    """
    frames = []
    for source in sources:
        found = find_format(columns.form, source)
        named = {"item": columns.item or found.item, "title": columns.title or found.title}
        if columns.year or found.year:
            named["year"] = str(columns.year or found.year)
        if columns.with_category:
            named["category"] = _category(columns.category or found.category, source)
        named |= {f"{OTHER}{column}": column for column in columns.others}
        for chunk in read_columns(source, found, list(named.values()), rejected):
            frame = pd.DataFrame({name: chunk[column] for name, column in named.items()})
            frame = frame.assign(line=chunk["line"], file=source.location)
            _reject_empty(frame, named, rejected)
            if columns.with_category:
                first = frame["category"].str.split(found.category_separator, regex=False).str[0]
                frame["category"] = first.str.strip()
            frames.append(frame[(frame["item"].str.strip() != "") & _has_title(frame)])
    if not frames:
        raise InputError(f"{sources[0].location}: has no usable item")
    items = pd.concat(frames, ignore_index=True)
    items = _reject_repeated(items, rejected, columns.item or "item")
    if items.empty:
        raise InputError(f"{sources[0].location}: has no usable item")
    for name in ("year", "category"):
        if name not in items:
            items[name] = ""
    others = [f"{OTHER}{column}" for column in columns.others]
    return items[["item", "title", "year", "category", *others]]


def _category(column: str | None, source: Source) -> str:
    if column is None:
        raise InputError(f"{source.location}: category_field: name the column of categories")
    return column


def _has_title(frame: pd.DataFrame) -> pd.Series:
    return frame["title"].str.strip() != ""


def _reject_empty(frame: pd.DataFrame, named: dict[str, str], rejected: RejectedRows) -> None:
    for name in ("item", "title"):
        for row in frame[frame[name].str.strip() == ""].itertuples():
            if name == "title" and not str(row.item).strip():
                continue  # reported already
            content = f"{row.item}\t{row.title}"
            rejected.add(str(row.file), int(str(row.line)), f"{named[name]} is empty", content)


def _reject_repeated(items: pd.DataFrame, rejected: RejectedRows, column: str) -> pd.DataFrame:
    repeated = items["item"].duplicated()
    if repeated.any():
        firsts = items[~repeated].set_index("item")["line"]
        for row in items[repeated].itertuples():
            rejected.add(
                str(row.file),
                int(str(row.line)),
                f"{column} {row.item!r} is already in line {firsts[row.item]}; "
                "ids must be distinct",
                f"{row.item}\t{row.title}",
            )
    return items[~repeated].reset_index(drop=True)

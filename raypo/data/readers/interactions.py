"""Interactions: user, item, time and, if requested, a rating."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from raypo.data.readers.formats import Format, TimeField, find_format
from raypo.data.readers.records import read_columns
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.readers.sources import Source
from raypo.data.readers.times import (
    check_time_format,
    expected_time,
    guess_time_format,
    parse_times,
)
from raypo.errors import InputError


@dataclass(frozen=True)
class LogReader:
    """How to read every file of a log: one format and one time format.

    Attributes:
        form: of the files.
        user, item, time: columns; time may be a year, a month and a day.
        rating: column of ratings; None does not read them.
        time_format: for `parse_times`, never `auto`.
    """

    form: Format
    user: str
    item: str
    time: TimeField
    rating: str | None
    time_format: str

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        time = [self.time] if isinstance(self.time, str) else list(self.time)
        return [self.user, self.item, *time, *([self.rating] if self.rating else [])]


@dataclass(frozen=True)
class LogColumns:
    """Format and columns of a log.

    Attributes:
        form: name of the format, or `auto`.
        user, item, time, rating: columns; None takes the format's own. Time may be a year, a month
            and a day.
        with_rating: whether ratings are read.
        time_format: `auto` takes the format's own, or infers it from the first rows.
    """

    form: str = "auto"
    user: str | None = None
    item: str | None = None
    time: TimeField | None = None
    rating: str | None = None
    with_rating: bool = False
    time_format: str = "auto"


def log_reader(sources: Sequence[Source], columns: LogColumns) -> LogReader:
    """Decide how a log is read. The time format is inferred from the first rows if unknown.

    Args:
        sources: the files, all of one format.
        columns: what to read.

    Raises:
        InputError: unknown format, files of several formats, no such column.
    """
    check_time_format(columns.time_format)
    formats = {find_format(columns.form, source) for source in sources}
    if len(formats) > 1:
        names = ", ".join(source.location for source in sources)
        raise InputError(f"{names}: files of several formats; give files of one format")
    found = formats.pop()
    reader = LogReader(
        found,
        columns.user or found.user,
        columns.item or found.item,
        columns.time or found.time,
        (columns.rating or found.rating) if columns.with_rating else None,
        found.time_format if columns.time_format == "auto" else columns.time_format,
    )
    if reader.time_format == "auto":
        reader = replace(reader, time_format=_infer_time_format(sources[0], reader))
    return reader


def _infer_time_format(source: Source, reader: LogReader) -> str:
    if not isinstance(reader.time, str):
        return "iso"
    # Rejected rows are reported later, when the log is read, by its policy.
    chunks = read_columns(source, reader.form, reader.columns, RejectedRows("quarantine"))
    with closing(chunks):
        for chunk in chunks:
            return guess_time_format(chunk[reader.time].head(1000))
    return "numbers"


def read_interactions(
    source: Source, reader: LogReader, rejected: RejectedRows
) -> Iterator[pd.DataFrame]:
    """Chunks of interactions in the order of the file.

    Returns:
        Columns user, item (text), time (float64; seconds, or numbers of a unit that is decided
        later if that is the time format), line, and rating (float64) if read.

    Raises:
        InputError: the file cannot be read, or a row is unusable and the policy is `stop`.
    """
    for chunk in read_columns(source, reader.form, reader.columns, rejected):
        time = _time_texts(chunk, reader.time)
        frame = pd.DataFrame(
            {
                "user": chunk[reader.user],
                "item": chunk[reader.item],
                "time": parse_times(time, reader.time_format),
                "line": chunk["line"],
            }
        )
        if reader.rating:
            ratings = pd.to_numeric(chunk[reader.rating], errors="coerce")
            frame["rating"] = ratings.astype("float64")
        problems = _problems(frame, chunk, time, reader)
        bad = problems != ""
        for index in frame.index[bad]:
            row = "\t".join(str(chunk.at[index, column]) for column in reader.columns)
            rejected.add(source.location, int(chunk.at[index, "line"]), problems.at[index], row)
        yield frame[~bad] if bad.any() else frame


def _time_texts(chunk: pd.DataFrame, time: TimeField) -> pd.Series:
    if isinstance(time, str):
        return chunk[time]
    year, month, day = (chunk[column].str.strip() for column in time)
    return year.str.zfill(4) + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)


def _problems(
    frame: pd.DataFrame, chunk: pd.DataFrame, time: pd.Series, reader: LogReader
) -> pd.Series:
    """The problem of each row, empty if there is none."""
    problems = pd.Series("", index=frame.index, dtype=object)
    wanted = expected_time(reader.time_format)
    name = reader.time if isinstance(reader.time, str) else "-".join(reader.time)
    bad = frame["time"].isna().to_numpy()
    problems[bad] = [f"{name} is {text[:200]!r}, expected {wanted}" for text in time[bad]]
    if reader.rating:
        bad = ~np.isfinite(frame["rating"].to_numpy())
        problems[bad] = [
            f"{reader.rating} is {text[:200]!r}, expected a number"
            for text in chunk[reader.rating][bad]
        ]
    for column, named in (("item", reader.item), ("user", reader.user)):
        problems[(frame[column].str.strip() == "").to_numpy()] = f"{named} is empty"
    return problems

"""Files of any format to chunks of text columns, with the line of every row."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.data.readers.formats import Format
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.readers.sources import Source, open_source, refuse_utf16
from raypo.errors import InputError

CHUNK = 50_000  # rows at a time: a few tens of MB
_LONGEST_FIELD = 1 << 20

Row = tuple[int, list[str]]  # line, fields
Rows = Generator[Row, None, None]


def read_columns(
    source: Source, form: Format, columns: Sequence[str], rejected: RejectedRows
) -> Generator[pd.DataFrame, None, None]:
    """Chunks of the columns as text, unchanged, with a column `line`.

    Raises:
        InputError: the file cannot be read, has no rows or lacks a column, or a row is unusable and
            the policy is `stop`.
    """
    columns = list(dict.fromkeys(columns))
    readers: dict[str, Callable[..., Rows]] = {
        "delimited": _delimited,
        "atomic": _delimited,
        "json": _objects,
        "literal": _objects,
        "parquet": _parquet,
    }
    empty = True
    try:
        with open_source(source) as stream:
            rows = readers[form.kind](stream, source.location, form, columns, rejected)
            with closing(rows):
                while chunk := list(islice(rows, CHUNK)):
                    empty = False
                    lines, fields = zip(*chunk, strict=True)
                    frame = pd.DataFrame(list(fields), columns=columns, dtype=object)
                    yield _decodable(frame.assign(line=lines), columns, source.location, rejected)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{source.location}: cannot be read ({error})") from None
    except ValueError as error:  # broken compression, among others
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source.location}: cannot be read ({error})") from None
    if empty and not rejected.count:
        raise InputError(f"{source.location}: expected at least one row, it has none")


def _delimited(
    stream: BinaryIO, file: str, form: Format, columns: list[str], rejected: RejectedRows
) -> Rows:
    with _text(stream, file, form) as text:
        rows = _quoted(text, file, form, rejected) if form.quoted else _plain(text, form.separator)
        names = list(form.names) if form.names else _header(rows, file, form)
        positions = _positions(names, columns, file)
        for line, fields in rows:
            if len(fields) == len(names):
                yield line, [fields[position] for position in positions]
            elif fields or not form.quoted:  # csv files may hold blank lines
                problem = f"expected {len(names)} fields, got {len(fields)}"
                rejected.add(file, line, problem, form.separator.join(fields))


def _text(stream: BinaryIO, file: str, form: Format) -> TextIO:
    refuse_utf16(stream.read(2), file)
    stream.seek(0)
    encoding = form.encoding
    if encoding == "utf-8 or latin-1":  # MovieLens changed from one to the other
        content = stream.read()
        try:
            content.decode("utf-8")
            encoding = "utf-8-sig"
        except UnicodeDecodeError:
            encoding = "latin-1"
        stream = io.BytesIO(content)
    newline = "" if form.quoted else "\n"
    # Bytes that are not UTF-8 are found row by row, so that errors can name the line.
    errors = "surrogateescape"
    return io.TextIOWrapper(stream, encoding, errors=errors, newline=newline)


def _plain(text: TextIO, separator: str) -> Iterator[Row]:
    """Split at line feeds only: titles may contain other line separators."""
    for number, line in enumerate(text, start=1):
        yield number, line.rstrip("\n").removesuffix("\r").split(separator)


def _quoted(text: TextIO, file: str, form: Format, rejected: RejectedRows) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(text, delimiter=form.separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            rejected.add(file, line, f"quotes are broken ({error})", f"to line {reader.line_num}")


def _header(rows: Iterator[Row], file: str, form: Format) -> list[str]:
    first = next(rows, None)
    if first is None:
        raise InputError(f"{file}: expected a header and at least one row, it is empty")
    names = [name.strip() for name in first[1]]
    return [name.partition(":")[0] for name in names] if form.kind == "atomic" else names


def _positions(names: Sequence[str], columns: Sequence[str], file: str) -> list[int]:
    for column in columns:
        if column not in names:
            raise InputError(f"{file}: no column {column!r}; its columns are {', '.join(names)}")
        if list(names).count(column) > 1:
            raise InputError(f"{file}:1: column {column!r} occurs more than once")
    return [list(names).index(column) for column in columns]


def _objects(
    stream: BinaryIO, file: str, form: Format, columns: list[str], rejected: RejectedRows
) -> Rows:
    """One object per line: JSON, or a Python dict that is parsed and never evaluated."""
    parse: Callable[[str], Any] = json.loads if form.kind == "json" else ast.literal_eval
    what = "JSON" if form.kind == "json" else "a Python dict"
    with _text(stream, file, form) as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                value = parse(line.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
                rejected.add(file, number, f"not {what} ({str(error)[:100]})", line.rstrip())
                continue
            if not isinstance(value, dict):
                rejected.add(file, number, f"is {type(value).__name__}, expected an object", line)
                continue
            missing = [column for column in columns if value.get(column) is None]
            if missing:
                known = ", ".join(str(key) for key in list(value)[:20])
                problem = f"no field {missing[0]!r}; it has {known}"
                rejected.add(file, number, problem, line.rstrip())
                continue
            try:
                fields = [_as_text(value[column]) for column in columns]
            except RecursionError:
                rejected.add(file, number, "nested too deeply", line.rstrip())
                continue
            yield number, fields


def _parquet(
    stream: BinaryIO, file: str, form: Format, columns: list[str], rejected: RejectedRows
) -> Rows:
    parquet = pq.ParquetFile(stream)
    _positions(parquet.schema_arrow.names, columns, file)
    number = 0
    for batch in parquet.iter_batches(batch_size=CHUNK, columns=columns):
        taken = [batch.column(column).to_pylist() for column in columns]
        for values in zip(*taken, strict=True):
            number += 1
            yield number, ["" if value is None else _as_text(value) for value in values]


def _as_text(value: object) -> str:
    """A value as in a text file; lists are joined, like categories."""
    if isinstance(value, list | tuple):
        return "|".join(_as_text(one) for one in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _decodable(
    frame: pd.DataFrame, columns: list[str], file: str, rejected: RejectedRows
) -> pd.DataFrame:
    """The chunk without rows that are not UTF-8."""
    bad = pd.Series(False, index=frame.index)
    for column in columns:
        try:
            "".join(frame[column]).encode()
        except UnicodeEncodeError:
            bad |= frame[column].map(_not_utf8)
    for row in frame[bad].itertuples():
        content = "\t".join(str(value) for value in row[1:-1])
        rejected.add(file, int(row.line), "not UTF-8", content)  # type: ignore[arg-type]
    return frame[~bad] if bad.any() else frame


def _not_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False

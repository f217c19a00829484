"""Rows of JSON lines or of a JSON array, with the line on which each begins."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypo.config.paths import uri
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.readers.sources import refuse_utf16
from raypo.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class SourceRow:
    """A row as its file holds it.

    Attributes:
        file: as the user named it. line: on which the row begins, from 1.
        place: what messages put before a problem, for rows that a line does not identify.
        values: of its fields. content: its text.
    """

    file: str
    line: int
    place: str
    values: dict[str, Any]
    content: str

    def reject(self, problem: str, rejected: RejectedRows) -> None:
        """Collect the row as unusable.

        Raises:
            InputError: with the policy `stop`.
        """
        rejected.add(self.file, self.line, self.place + problem, self.content)


def read_json_rows(path: Path, rejected: RejectedRows) -> Iterator[SourceRow]:
    """Rows of JSON lines or of a JSON array, gzipped or not.

    Args:
        path: of the file.
        rejected: collects lines that are not UTF-8, not JSON, or no object.

    Raises:
        InputError: the file cannot be read, is a broken array, or a row is unusable and the policy
            is `stop`.
    """
    file = uri(path)
    content = _content(path, file)
    array = content.lstrip()[:1] == b"["
    for row in _array(content, file) if array else _lines(content, file, rejected):
        line, place, value, text = row
        if isinstance(value, dict):
            yield SourceRow(file, line, place, value, text)
        else:
            problem = f"is {type(value).__name__}, expected an object"
            rejected.add(file, line, place + problem, text)


def _content(path: Path, file: str) -> bytes:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    refuse_utf16(content, file)
    return content.removeprefix(codecs.BOM_UTF8)


_Parsed = tuple[int, str, Any, str]  # line, place, value, text


def _lines(content: bytes, file: str, rejected: RejectedRows) -> Iterator[_Parsed]:
    """Divide at line feeds only: titles may contain other line separators."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        try:
            line.decode("utf-8")
            value = json.loads(text)
        except UnicodeDecodeError:
            rejected.add(file, number, "not UTF-8", text)
        except RecursionError:
            rejected.add(file, number, "not JSON that can be read (nested too deeply)", text)
        except ValueError as error:
            rejected.add(file, number, f"not JSON ({error})", text)
        else:
            yield number, "", value, text


def _array(content: bytes, file: str) -> Iterator[_Parsed]:
    """Rows of an array; after a broken one it is unknown where the next begins."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: not UTF-8") from None
    decoder = json.JSONDecoder()
    position, line, counted = _space(text, text.index("[") + 1), 1, 0
    number = 0
    closed = text.startswith("]", position)
    while not closed:
        number += 1
        line, counted = line + text.count("\n", counted, position), position
        place = f"row {number} of the array: "
        try:
            value, end = decoder.raw_decode(text, position)
        except RecursionError:
            problem = "not JSON that can be read (nested too deeply)"
            raise InputError(f"{file}:{line}: {place}{problem}") from None
        except ValueError as error:
            raise InputError(f"{file}:{line}: {place}not JSON ({error})") from None
        yield line, place, value, text[position:end]
        position = _space(text, end)
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            raise InputError(f"{file}:{line}: {place}expected ',' or ']' after it")
        if not closed:
            position = _space(text, position + 1)
    if text[position + 1 :].strip():
        line += text.count("\n", counted, position)
        raise InputError(f"{file}:{line}: expected nothing after the array")


def _space(text: str, position: int) -> int:
    """The next position that is not white space."""
    found = _SPACE.match(text, position)
    return found.end() if found else position

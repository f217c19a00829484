"""Rows of published files: a history, a list of candidates and a target, all titles."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypo.config import ImportConfig, InputError
from raypo.data.joined_titles import JoinedTitles
from raypo.data.readers import RejectedRows
from raypo.data.readers.sources import refuse_utf16


@dataclass(frozen=True)
class PublishedRow:
    """One row.

    Attributes:
        line: from 1; of a JSON array the element.
        history: titles, oldest first; or one text of joined titles.
        target: title.
        candidates: titles.
        user: as the file names the user, empty where it names none.
        content: the row as text, for reports.
    """

    line: int
    history: Sequence[str] | str
    target: str
    candidates: Sequence[str]
    user: str
    content: str


def read_rows(path: Path, config: ImportConfig, rejected: RejectedRows) -> list[PublishedRow]:
    """Rows of a file; unusable ones are rejected.

    Raises:
        InputError: the file cannot be read, or a row is unusable and the policy is `stop`.
    """
    rows = []
    for line, text, value in _values(path, rejected):
        try:
            rows.append(_row(line, text, value, config))
        except ValueError as error:
            rejected.add(str(path), line, str(error), text)
    return rows


def named_titles(rows: Sequence[PublishedRow]) -> set[str]:
    """Every title that stands by itself: candidates, targets, and histories that are lists."""
    titles: set[str] = set()
    for row in rows:
        titles.update(row.candidates, [row.target])
        if not isinstance(row.history, str):
            titles.update(row.history)
    return titles


def resolve_histories(
    path: Path, rows: Sequence[PublishedRow], titles: JoinedTitles, rejected: RejectedRows
) -> list[tuple[PublishedRow, list[str]]]:
    """Each row with its history as titles; rows whose history cannot be told are rejected."""
    resolved = []
    for row in rows:
        if not isinstance(row.history, str):
            resolved.append((row, list(row.history)))
            continue
        try:
            resolved.append((row, titles.split(row.history)))
        except ValueError as error:
            rejected.add(str(path), row.line, f"its history cannot be told: {error}", row.content)
    return resolved


def _row(line: int, text: str, value: Any, config: ImportConfig) -> PublishedRow:
    """Check a row.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(value, dict):
        raise ValueError(f"is {type(value).__name__}, expected an object")
    for field in (config.history_field, config.candidates_field, config.target_field):
        if field not in value:
            known = ", ".join(list(value)[:20]) or "no field"
            raise ValueError(f"no field {field!r}; it has {known}")
    target = value[config.target_field]
    if not isinstance(target, str) or not target.strip():
        raise ValueError(f"{config.target_field} is {target!r}, expected a title")
    candidates = _candidates(value[config.candidates_field], config)
    _require_target(target.strip(), candidates, config)
    history = value[config.history_field]
    if not isinstance(history, str):
        history = _titles(history, config.history_field)
    elif not history.strip():
        raise ValueError(f"{config.history_field} is empty")
    user = ""
    if config.user_field is not None:
        if not isinstance(value.get(config.user_field), str | int):
            raise ValueError(
                f"{config.user_field} is {value.get(config.user_field)!r}, expected a user's id"
            )
        user = str(value[config.user_field])
    return PublishedRow(line, history, target.strip(), candidates, user, text)


def _candidates(value: Any, config: ImportConfig) -> list[str]:
    """Candidates are the titles that others are resolved by: one text is split as it stands."""
    if isinstance(value, str):
        value = value.split(config.separator)
    return _titles(value, config.candidates_field)


def _titles(value: Any, field: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(title, str) for title in value):
        raise ValueError(f"{field} is {value!r}, expected titles")
    titles = [title.strip() for title in value]
    if not titles or not all(titles):
        raise ValueError(f"{field} holds an empty title")
    return titles


def _require_target(target: str, candidates: Sequence[str], config: ImportConfig) -> None:
    if target not in candidates:
        raise ValueError(
            f"{config.target_field} is {target!r}, expected one of its {len(candidates)} candidates"
        )
    twice = [title for title in candidates if candidates.count(title) > 1]
    if twice:
        raise ValueError(f"{config.candidates_field} holds {twice[0]!r} more than once")


def _values(path: Path, rejected: RejectedRows) -> Iterator[tuple[int, str, Any]]:
    """Number, text and value of each row of a JSON array or of JSON lines, gzipped or not."""
    text = _text(path)
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({_short(error)})") from None
        for number, value in enumerate(values, start=1):
            yield number, json.dumps(value, ensure_ascii=False), value
        return
    # At line feeds alone: titles may hold other line separators, which JSON does not escape.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            rejected.add(str(path), number, f"not JSON ({_short(error)})", line)
            continue
        yield number, line, value


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    refuse_utf16(content[:2], str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 ({error.reason})") from None


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]

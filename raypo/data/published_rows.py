"""Rows of published files: their fields checked, and their texts divided into titles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raypo.config import ImportConfig
from raypo.data.readers.joined_titles import TitleDivider
from raypo.data.readers.json_rows import SourceRow
from raypo.data.readers.rejected_rows import RejectedRows

Titles = list[str] | str


class _Problem(Exception):
    """Why a row is unusable."""


@dataclass(frozen=True)
class PublishedRow:
    """A row whose fields have the right types.

    Attributes:
        source: where it comes from.
        history, candidates: titles, or one text of joined titles that is not divided yet.
        target: a title.
    """

    source: SourceRow
    history: Titles
    candidates: Titles
    target: str


@dataclass(frozen=True)
class ImportedRow:
    """A usable row: its titles, oldest first in the history."""

    source: SourceRow
    history: list[str]
    candidates: list[str]
    target: str


def typed_rows(
    rows: Iterable[SourceRow], config: ImportConfig, rejected: RejectedRows
) -> Iterator[PublishedRow]:
    """Rows that have all fields, of the right types; `rejected` collects the others."""
    for row in rows:
        try:
            yield PublishedRow(
                row,
                _titles(row, config.history_field),
                _titles(row, config.candidates_field),
                _title(row, config.target_field),
            )
        except _Problem as problem:
            row.reject(str(problem), rejected)


def named_titles(rows: Iterable[PublishedRow]) -> set[str]:
    """Titles that the rows name: targets and the members of lists."""
    named: set[str] = set()
    for row in rows:
        named.add(row.target)
        for titles in (row.history, row.candidates):
            if isinstance(titles, list):
                named.update(titles)
    return named


def divided_candidates(rows: Sequence[PublishedRow], known: set[str], separator: str) -> set[str]:
    """Titles in candidate lists that are one text, by the titles known already.

    A candidate list may be the only place that names a title. Where known titles do not divide it,
    it is divided at every separator.
    """
    divider = TitleDivider(known, separator)
    titles: set[str] = set()
    for row in rows:
        if isinstance(row.candidates, str) and not divider.divide(row.candidates).ways:
            titles.update(part.strip() for part in row.candidates.split(separator))
    return titles - {""}


def usable_rows(
    rows: Iterable[PublishedRow],
    divider: TitleDivider,
    config: ImportConfig,
    rejected: RejectedRows,
) -> Iterator[ImportedRow]:
    """Rows with all texts divided and the target among distinct candidates."""
    for row in rows:
        try:
            history = _divided(row.history, config.history_field, divider)
            candidates = _divided(row.candidates, config.candidates_field, divider)
            _check_candidates(row.target, candidates, config)
        except _Problem as problem:
            row.source.reject(str(problem), rejected)
            continue
        yield ImportedRow(row.source, history, candidates, row.target)


def _field(row: SourceRow, name: str) -> Any:
    if name not in row.values:
        known = ", ".join(list(row.values)[:20]) or "none"
        raise _Problem(f"no field {name!r}; its fields are {known}")
    return row.values[name]


def _title(row: SourceRow, field: str) -> str:
    value = _field(row, field)
    if not isinstance(value, str) or not value.strip():
        raise _Problem(f"{field} is {_shown(value)}, expected a title")
    _check_unicode([value], field)
    return value.strip()


def _titles(row: SourceRow, field: str) -> Titles:
    value = _field(row, field)
    if isinstance(value, str):
        if not value.strip():
            raise _Problem(f"{field} is empty")
        _check_unicode([value], field)
        return value
    if not isinstance(value, list) or not all(isinstance(title, str) for title in value):
        raise _Problem(f"{field} is {_shown(value)}, expected titles")
    titles = [title.strip() for title in value]
    if not titles:
        raise _Problem(f"{field} is empty")
    if not all(titles):
        raise _Problem(f"{field} holds an empty title")
    _check_unicode(titles, field)
    return titles


def _check_unicode(texts: Sequence[str], field: str) -> None:
    """JSON can escape half a surrogate pair, which no file of text can hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Problem(f"{field} holds {_shown(text)}, which is not Unicode") from None


def _divided(titles: Titles, field: str, divider: TitleDivider) -> list[str]:
    if isinstance(titles, list):
        return titles
    division = divider.divide(titles)
    if division.ways == 1:
        return division.titles
    if division.ways:
        raise _Problem(f"{field} is {_shown(titles)}, which divides into titles in several ways")
    unknown = divider.first_unknown(titles)
    if unknown == "":
        raise _Problem(f"{field} holds an empty title")
    raise _Problem(
        f"{field} holds {_shown(unknown)}, which no target, candidate list or item names"
    )


def _check_candidates(target: str, candidates: list[str], config: ImportConfig) -> None:
    if target not in candidates:
        raise _Problem(
            f"{config.target_field} is {_shown(target)}, expected one of its {len(candidates)} "
            "candidates"
        )
    seen: set[str] = set()
    for title in candidates:
        if title in seen:
            raise _Problem(f"{config.candidates_field} holds {_shown(title)} more than once")
        seen.add(title)


def _shown(value: object) -> str:
    """A value for messages, cut to 200 characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 200 else text[:200] + "…"

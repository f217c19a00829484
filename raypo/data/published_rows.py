"""Rows of published files: their fields checked, and their texts divided into titles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypo.config import ImportConfig
from raypo.data.readers.joined_titles import TitleDivider
from raypo.data.readers.json_rows import SourceRow, read_json_rows
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.source_ids import SourceIds, read_source_ids

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
        user: the source's id; None if the rows name no users.
        ids: the source's ids of history, candidates and target; None if the rows do not have them.
    """

    source: SourceRow
    history: Titles
    candidates: Titles
    target: str
    user: str | None
    ids: tuple[list[str] | None, list[str] | None, list[str] | None]


@dataclass(frozen=True)
class ImportedRow:
    """A usable row: its titles, oldest first in the history, and its user if known."""

    source: SourceRow
    history: list[str]
    candidates: list[str]
    target: str
    user: str | None = None


@dataclass(frozen=True)
class Published:
    """What published files hold.

    Attributes:
        splits: usable rows by split.
        ids: of items at the source.
        titles: items that are in the data set even if no row names them.
        counts: further numbers for `dataset.json`.
        validation_is_cut: the validation rows are the end of the training file.
    """

    splits: dict[str, list[ImportedRow]]
    ids: SourceIds
    titles: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    validation_is_cut: bool = False


def read_published_json(
    files: Mapping[str, Path], config: ImportConfig, rejected: RejectedRows
) -> Published:
    """Rows of files of JSON.

    Titles may hold the separator, so a text of joined titles is divided by the titles that all
    files name.

    Args:
        files: by split.
        config: names the fields and the file of items.
        rejected: collects unusable rows.

    Raises:
        InputError: a file cannot be read, or a row is unusable and the policy is `stop`.
    """
    ids = read_source_ids(config, rejected)
    typed = {
        name: list(typed_rows(read_json_rows(path, rejected), config, rejected))
        for name, path in files.items()
    }
    rows = [row for split in typed.values() for row in split]
    known = named_titles(rows) | ids.titles
    known |= divided_candidates(rows, known, config.separator)
    divider = TitleDivider(known, config.separator)
    return Published(
        {
            name: list(usable_rows(split, divider, ids, config, rejected))
            for name, split in typed.items()
        },
        ids,
    )


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
                _user(row, config.user_field),
                (
                    _ids(row, config.history_ids_field, config.separator),
                    _ids(row, config.candidates_ids_field, config.separator),
                    _ids(row, config.target_id_field, None),
                ),
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
    ids: SourceIds,
    config: ImportConfig,
    rejected: RejectedRows,
) -> Iterator[ImportedRow]:
    """Rows with all texts divided and the target among distinct candidates; adds their `ids`."""
    for row in rows:
        try:
            history = _divided(row.history, config.history_field, divider)
            candidates = _divided(row.candidates, config.candidates_field, divider)
            _check_candidates(row.target, candidates, config)
            _add_ids(row, (history, candidates, [row.target]), ids, config)
        except _Problem as problem:
            row.source.reject(str(problem), rejected)
            continue
        yield ImportedRow(row.source, history, candidates, row.target, row.user)


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


def _user(row: SourceRow, field: str | None) -> str | None:
    return None if field is None else _id(_field(row, field), field)


def _ids(row: SourceRow, field: str | None, separator: str | None) -> list[str] | None:
    """Ids in a list, or joined in a text; a single one if there is no separator."""
    if field is None:
        return None
    value = _field(row, field)
    if separator is None:
        return [_id(value, field)]
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise _Problem(f"{field} is {_shown(value)}, expected ids")
    return [_id(part, field) for part in parts]


def _id(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise _Problem(f"{field} holds {_shown(value)}, expected an id (a text or a whole number)")
    _check_unicode([str(value)], field)
    return str(value).strip()


def _add_ids(
    row: PublishedRow,
    titles: tuple[list[str], list[str], list[str]],
    ids: SourceIds,
    config: ImportConfig,
) -> None:
    fields = (config.history_ids_field, config.candidates_ids_field, config.target_id_field)
    pairs: list[tuple[str, str]] = []
    for name, keys, names in zip(fields, row.ids, titles, strict=True):
        if keys is None:
            continue
        if len(keys) != len(names):
            raise _Problem(f"{name} holds {len(keys)} ids of {len(names)} titles")
        pairs += zip(keys, names, strict=True)
    problem = ids.add(pairs)
    if problem:
        raise _Problem(problem)


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

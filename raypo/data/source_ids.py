"""The ids that items have at their source, by title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raypo.config import ImportConfig
from raypo.config.paths import uri
from raypo.data.readers import ItemColumns, RejectedRows, read_items
from raypo.data.readers.llara import read_llara_items
from raypo.data.readers.sources import resolve_sources
from raypo.errors import InputError


class SourceIds:
    """A title has one id, and an id one title."""

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        self._titles = dict(titles or {})
        self._ids = {title: key for key, title in self._titles.items()}

    def add(self, pairs: Iterable[tuple[str, str]]) -> str:
        """Add ids and their titles, all or none.

        Returns:
            Why they contradict each other or earlier ones; empty if they do not.
        """
        titles: dict[str, str] = {}
        ids: dict[str, str] = {}
        for key, title in pairs:
            other = titles.setdefault(key, self._titles.get(key, title))
            if other != title:
                return f"id {key!r} belongs to {title!r} here, but to {other!r} before"
            other = ids.setdefault(title, self._ids.get(title, key))
            if other != key:
                return f"{title!r} has the id {key!r} here, but {other!r} before"
        self._titles |= titles
        self._ids |= ids
        return ""

    @property
    def titles(self) -> set[str]:
        """All titles that have an id."""
        return set(self._ids)

    def of(self, title: str) -> str:
        """The id of a title; the title itself if it has none."""
        return self._ids.get(title, title)


def read_source_ids(config: ImportConfig, rejected: RejectedRows) -> SourceIds:
    """Ids and titles of the items file; none without one.

    Raises:
        InputError: the file cannot be read, or two items share a title.
    """
    if config.items is None:
        return SourceIds()
    file = uri(config.items)
    if config.items.suffix == ".txt":
        named = read_llara_items(config.items)
        return SourceIds({str(key): title for key, title in named.items()})
    columns = ItemColumns(config.items_format, config.item_field, config.title_field)
    items = read_items(resolve_sources([str(config.items)]), rejected, columns)
    titles = dict(zip(items["item"].str.strip(), items["title"].str.strip(), strict=True))
    ids = SourceIds()
    for key, title in titles.items():
        problem = ids.add([(key, title)])
        if problem:
            raise InputError(f"{file}: {problem}; titles must be distinct")
    return ids

"""Dividing a text of joined titles, although titles may hold the separator themselves."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Set
from dataclasses import dataclass

_SEVERAL = 2  # more ways than this are not told apart


@dataclass(frozen=True)
class Division:
    """How a text divides into known titles.

    Attributes:
        ways: 0, 1, or 2 for several.
        titles: of one of the ways; empty if there is none.
    """

    ways: int
    titles: list[str]


class TitleDivider:
    """Divides texts at a separator, so that every part is a known title.

    `:wumpscut:::Enigma` holds `::` at two places that overlap; only one of them leaves two titles.

    Args:
        known: all titles, without spaces around them.
        separator: between titles.
    """

    def __init__(self, known: Set[str], separator: str) -> None:
        self._known = known
        self._separator = separator
        self._longest = max(map(len, known), default=0)

    def divide(self, text: str) -> Division:
        """Find the ways to divide `text`; spaces around titles do not count."""
        length, width = len(text), len(self._separator)
        cuts = [*self._places(text), length]
        # From the end: how many ways divide the rest, and where its first title ends.
        ways = {length + width: 1}
        title_end: dict[int, int] = {}
        for start in [*(cut + width for cut in cuts[-2::-1]), 0]:
            ways[start] = 0
            for end in self._title_ends(text, start, cuts):
                if ways[end + width]:
                    ways[start] = min(_SEVERAL, ways[start] + ways[end + width])
                    title_end[start] = end
        titles, start = [], 0
        while start in title_end:
            titles.append(text[start : title_end[start]].strip())
            start = title_end[start] + width
        return Division(ways[0], titles if ways[0] else [])

    def first_unknown(self, text: str) -> str | None:
        """The first part between separators that is no known title; None if all are."""
        parts = (part.strip() for part in text.split(self._separator))
        return next((part for part in parts if part not in self._known), None)

    def _places(self, text: str) -> Iterator[int]:
        """Where the separator occurs, overlapping occurrences included."""
        place = text.find(self._separator)
        while place >= 0:
            yield place
            place = text.find(self._separator, place + 1)

    def _title_ends(self, text: str, start: int, cuts: list[int]) -> Iterator[int]:
        begin = len(text) - len(text[start:].lstrip())
        for end in cuts[bisect_left(cuts, start) :]:
            title = text[begin:end].strip()
            if len(title) > self._longest:
                return
            if title in self._known:
                yield end

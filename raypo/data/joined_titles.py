"""Titles that a file joins to one text, where titles may contain the separator themselves.

`Depths of Fear :: Knossos` cannot be told from two titles by the separator alone, nor can
`:wumpscut:` beside `::`. The titles that the file names singly (candidates, targets) decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class JoinedTitles:
    """Splits joined titles into known ones.

    Attributes:
        known: every title that the files name singly.
        separator: between the titles of a joined text.
    """

    known: Collection[str]
    separator: str

    def split(self, text: str) -> list[str]:
        """The only sequence of known titles that the text can be.

        Raises:
            ValueError: there is none, or more than one; the message says what is wrong.
        """
        found = list(self._first_two(text))
        if not found:
            raise ValueError(self._problem(text))
        if len(found) > 1:
            raise ValueError(
                f"{text!r} is several sequences of known titles, such as {found[0]} and {found[1]}"
            )
        return found[0]

    def _first_two(self, text: str) -> list[list[str]]:
        """At most two ways to read the text, built from its end."""
        ends = [*self._separators(text), len(text)]
        starts = [0, *(end + len(self.separator) for end in ends[:-1])]
        ways: dict[int, list[list[str]]] = {len(text) + len(self.separator): [[]]}
        for start in reversed(starts):
            ways[start] = []
            for end in ends:
                title = text[start:end].strip()
                if end < start or title not in self.known:
                    continue
                for rest in ways.get(end + len(self.separator), ()):
                    if [title, *rest] not in ways[start]:
                        ways[start].append([title, *rest])
            del ways[start][2:]
        return ways[0]

    def _separators(self, text: str) -> Iterator[int]:
        """Where the separator occurs, overlapping ones too."""
        position = text.find(self.separator)
        while position >= 0:
            yield position
            position = text.find(self.separator, position + 1)

    def _problem(self, text: str) -> str:
        pieces = [piece.strip() for piece in text.split(self.separator)]
        if not all(pieces):
            return f"{text!r} holds an empty title"
        unknown: Sequence[str] = [piece for piece in pieces if piece not in self.known]
        if not unknown:
            return f"{text!r} is no sequence of known titles"
        return f"it holds {unknown[0]!r}, which no candidate list or target names"

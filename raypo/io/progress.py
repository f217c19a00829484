"""How a stage reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """How a stage says how far it is: `done` of `total`, and a few words of detail."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` units of work are finished."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """A Progress that tells nobody."""

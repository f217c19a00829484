"""The progress of a stage."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that receives the progress of a stage."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` units of work are finished; `note` adds a detail."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""

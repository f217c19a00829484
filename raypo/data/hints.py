"""Hints: what recommenders know of a user's candidates, as a prompt carries it.

`raypo.recommenders.hints` makes them; here is what prompts read of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class UserHints:
    """Hints of one user with h history items and k candidates; f features of a title.

    Attributes:
        order: [k] positions of the candidates in the order in which the prompt lists them; None
            lists them as they come.
        marks: text before the title of each candidate, in the order as they come; None is a hyphen.
        history_features: [h, f] of each history item, oldest first; None for hints without vectors.
        candidate_features: [k, f] of the candidates as they come; None likewise.
        is_hidden: the prompt is to show none of them.
    """

    order: np.ndarray | None = None
    marks: list[str] | None = None
    history_features: np.ndarray | None = None
    candidate_features: np.ndarray | None = None
    is_hidden: bool = False

    def hidden(self) -> UserHints:
        """The same user without hints; a marker is the plain token of its word."""
        return replace(self, order=None, marks=None, is_hidden=True)


class Hints(Protocol):
    """Gives users' hints.

    Attributes:
        sentence: tells the reader of a prompt what the hints are; '' for nothing.
        marker: where the marker of a title stands; None for hints without vectors.
    """

    @property
    def sentence(self) -> str:
        """Text for a template's `{hints}`."""

    @property
    def marker(self) -> Literal["before", "after"] | None:
        """Side of the title on which its marker stands."""

    def __call__(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        folds: Sequence[int] | None = None,
        hidden: Sequence[np.ndarray] | None = None,
    ) -> list[UserHints]:
        """The hints of several users.

        Args:
            histories: item ids of each user, oldest first.
            candidates: item ids of each user.
            folds: of training rows, the fold that each is held out in; None for held-out rows.
            hidden: bool [k] of each user: candidates of which nothing is told; None is none.
        """


@dataclass(frozen=True)
class Markers:
    """Tokens of one prompt whose embeddings a projector replaces.

    Attributes:
        positions: [v] token positions in the prompt, ascending.
        features: [v, f] input of the projector.
    """

    positions: list[int]
    features: np.ndarray

"""What the HTTP interface asks of the models, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from raypo.serving.ranker import Question, Ranking


class Overloaded(Exception):
    """As many requests wait as may."""


class Refused(Exception):
    """A question cannot be answered; the message says why and shows nothing private."""


@dataclass(frozen=True)
class Models:
    """Models that questions can ask for.

    Attributes:
        names: of the models.
        refused: name -> why it could not be loaded.
    """

    names: list[str]
    refused: dict[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Ranks questions."""

    async def rank(self, question: Question) -> Ranking:
        """The answer to a question.

        Raises:
            Overloaded: too many wait.
            Refused: the question cannot be answered.
            TimeoutError: it took too long.
        """

    async def models(self) -> Models:
        """The models that questions can ask for.

        Raises:
            Overloaded: too many requests wait.
        """

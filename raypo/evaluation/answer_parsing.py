"""Turning a model's answer into a candidate, by two rules of validity."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Straight quotes, and curly ones by number: they are hard to tell apart on a screen.
_AROUND = " \"'`*.,;:!«»" + "\u2018\u2019\u201c\u201d"


def match_answer(answer: str, titles: Sequence[str]) -> int | None:
    """The candidate that an answer names, by the papers' rule of validity.

    An answer is valid if exactly one candidate's title is a substring of it, as in the evaluation
    code that S-DPO and NAPO publish. The comparison is theirs too: case counts. A title inside
    another title ("Alien" in "Aliens") makes the longer one's answer invalid; that is the rule.

    Args:
        answer: the generated text.
        titles: the candidates' titles.

    Returns:
        Position of the title in `titles`, or None where none or several are in the answer.
    """
    found = [index for index, title in enumerate(titles) if title in answer]
    return found[0] if len(found) == 1 else None


def match_exactly(answer: str, titles: Sequence[str]) -> int | None:
    """The candidate whose title the answer is, and nothing else.

    Both are normalised: Unicode's compatibility form, case, white space, and quotes or full stops
    around them. A title inside another does no harm here; a sentence around the title does.

    Args:
        answer: the generated text.
        titles: the candidates' titles.

    Returns:
        Position of the title in `titles`, or None where none or several are equal to the answer.
    """
    said = _normalised(answer)
    found = [index for index, title in enumerate(titles) if _normalised(title) == said]
    return found[0] if said and len(found) == 1 else None


def _normalised(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    stripped = " ".join(plain.split()).strip(_AROUND)
    return stripped or " ".join(plain.split())

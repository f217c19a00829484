"""Turning a model's answer into a candidate."""

from __future__ import annotations

from collections.abc import Sequence


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

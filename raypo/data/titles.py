"""Titles as prompts show them: in reading order, and distinct among items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# Articles that catalogues move behind a comma, in the languages MovieLens has.
_ARTICLES = (
    "The|A|An|La|Le|Les|L'|Il|El|Los|Las|Lo|Gli|I|Das|Der|Die|Den|Det|De|Het|Un|Une|Una|O|Os|As"
)
_MOVED = re.compile(rf"^(?P<rest>.+), (?P<article>{_ARTICLES})$")
_PARENTHESIS = re.compile(r"\(([^()]*)\)")


def clean_title(title: str) -> str:
    """Put moved articles back, also those of alternative titles, and normalise white space.

    >>> clean_title("Godfather, The")
    'The Godfather'
    >>> clean_title("City of Lost Children, The (Cité des enfants perdus, La)")
    'The City of Lost Children (La Cité des enfants perdus)'
    """
    main, parenthesis, rest = " ".join(title.split()).partition(" (")
    alternatives = _PARENTHESIS.sub(
        lambda match: f"({_article_first(match[1])})", f"{parenthesis}{rest}"
    )
    return _article_first(main) + alternatives


def display_titles(
    titles: Sequence[str], years: Sequence[str] | None = None, clean: bool = True
) -> list[str]:
    """Titles as prompts show them, distinct regardless of case: an answer names one item.

    If several items share a title, ' (year)' is added, then ' [2]', ' [3]' if that is not enough.

    Args:
        titles: one per item, from the catalogue.
        years: what distinguishes items of the same title; empty if unknown.
        clean: apply `clean_title`; otherwise only white space is normalised.
    """
    shown = [clean_title(title) if clean else " ".join(title.split()) for title in titles]
    if years is not None:
        shared = _shared(shown)
        shown = [
            f"{title} ({year})" if title.casefold() in shared and year else title
            for title, year in zip(shown, years, strict=True)
        ]
    return _numbered(shown)


def _numbered(titles: Sequence[str]) -> list[str]:
    """Keep the first of equal titles; give the others the next number that no title has."""
    reserved = {title.casefold() for title in titles}
    seen: Counter[str] = Counter()
    distinct = []
    for title in titles:
        key, chosen = title.casefold(), title
        seen[key] += 1
        if seen[key] > 1:
            while (chosen := f"{title} [{seen[key]}]").casefold() in reserved:
                seen[key] += 1
            reserved.add(chosen.casefold())
        distinct.append(chosen)
    return distinct


def _article_first(title: str) -> str:
    match = _MOVED.match(title)
    if match is None:
        return title
    space = "" if match["article"].endswith("'") else " "
    return f"{match['article']}{space}{match['rest']}"


def _shared(titles: Sequence[str]) -> set[str]:
    counts = Counter(title.casefold() for title in titles)
    return {title for title, count in counts.items() if count > 1}

"""Texts of items: a title with what else the catalogue says, by a template.

A text begins with the item's title, so that prompts can show it where they would show the title.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from raypo.errors import InputError

_TITLE = "title"
# Punctuation around fields that were empty: "(, Drama)", "Heat ()".
_LEADING = re.compile(r"([(\[])[\s,;:/|]+")
_TRAILING = re.compile(r"[\s,;:/|]+([)\]])")
_EMPTY = re.compile(r"\s*(\(\)|\[\])")
_DANGLING = re.compile(r"[\s,;:/|]+$")


def text_fields(template: str) -> tuple[str, ...]:
    """The columns of the catalogue that a template names, each once.

    Raises:
        InputError: the template does not begin with `{title}`, names no column, or has a field with
            a conversion or format.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(
            f"item_text: {template!r}: {error}; double a brace that is part of the text"
        ) from None
    if any(name is not None and (form or conversion) for _, name, form, conversion in parsed):
        raise InputError(
            f"item_text: {template!r}: a field has no conversion or format: {{genres}}, not "
            "{genres!r}"
        )
    names = [name for _, name, _, _ in parsed if name is not None]
    if not template.startswith("{title}") or names.count(_TITLE) != 1:
        raise InputError(f"item_text: {template!r}: has to begin with {{title}}, and have it once")
    columns = tuple(dict.fromkeys(name for name in names if name != _TITLE))
    if not columns or "" in columns:
        raise InputError(
            f"item_text: {template!r}: expected columns of the item files beside {{title}}, as in "
            "{title} ({genres})"
        )
    return columns


def item_texts(
    template: str, titles: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> list[str]:
    """The text of each item, on one line; punctuation around empty fields is left out.

    >>> item_texts("{title} ({year}, {genres})", ["Heat"], {"year": [""], "genres": ["Crime"]})
    ['Heat (Crime)']

    Args:
        template: as `text_fields` allows it.
        titles: of the items, as prompts show them.
        columns: values of each item by name of the column.
    """
    rest = template.removeprefix("{title}")
    rows = zip(*columns.values(), strict=True)
    texts = []
    for title, row in zip(titles, rows, strict=True):
        values = {name: " ".join(value.split()) for name, value in zip(columns, row, strict=True)}
        texts.append(title + _tidy(rest.format(**values)))
    return texts


def _tidy(text: str) -> str:
    text = _TRAILING.sub(r"\1", _LEADING.sub(r"\1", text))
    return _DANGLING.sub("", _EMPTY.sub("", text))

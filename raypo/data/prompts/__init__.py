"""Prompt templates: text files with `{history}` and `{candidates}`, which a user can replace."""

from __future__ import annotations

import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from raypo.config import InputError

_FIELDS = ["candidates", "history"]


def load_template(path: Path | None) -> str:
    """A template's text; None is the built-in one.

    Raises:
        InputError: it cannot be read, or does not have `{history}` and `{candidates}` once each.
    """
    if path is None:
        return resources.files(__package__).joinpath("ranking.txt").read_text("utf-8").rstrip("\n")
    try:
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: prompt template cannot be read ({error})") from None
    _check_fields(text, path)
    return text


def render(template: str, history_titles: Sequence[str], candidate_titles: Sequence[str]) -> str:
    """Fill a template: history separated by semicolons, one candidate per line."""
    return template.format(
        history="; ".join(history_titles), candidates="\n".join(candidate_titles)
    )


def _check_fields(text: str, path: Path) -> None:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"{path}: {error}; double a brace that is part of the text") from None
    # A field with a conversion or a format, as in {history!r} or {history:>9}, is refused.
    found = sorted(
        f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
        for _, name, form, conversion in parsed
        if name is not None
    )
    if found != _FIELDS:
        listed = ", ".join(f"{{{name}}}" for name in found) or "neither"
        raise InputError(
            f"{path}: expected {{history}} and {{candidates}} once each and no other field, "
            f"found {listed}"
        )

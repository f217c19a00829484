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
        InputError: unreadable, or without exactly one `{history}` and one `{candidates}`.
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
    """Fill a template: the history parted by semicolons, one candidate a line."""
    return template.format(
        history="; ".join(history_titles), candidates="\n".join(candidate_titles)
    )


def _check_fields(text: str, path: Path) -> None:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"{path}: {error}; write a brace of the text itself twice") from None
    # A conversion or a format, as in {history!r} or {history:>9}, makes another field of it.
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

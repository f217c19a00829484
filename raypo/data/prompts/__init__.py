"""Prompt templates: text files with `{history}` and `{candidates}`, which a user can replace.

`{hints}`, which a template may leave out, is a sentence on what the marks of candidates say. A
template with `{candidate}` instead of `{candidates}` asks about one candidate at a time, and one
with `{history}` alone about the whole catalogue.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from raypo.config.policy import BUILT_IN_PROMPTS
from raypo.errors import InputError

_FIELDS = (["candidates", "history"], ["candidate", "history"], ["history"])
_MARK = "-"
_CANDIDATE = "\ue002"  # stands for the candidate until the text is divided there


def load_template(prompt: Path | str | None) -> str:
    """A template's text.

    Args:
        prompt: a file, or the name of a built-in template; None is `ranking`.

    Raises:
        InputError: it cannot be read, or has other fields than `{history}` once, and at most one
            of `{candidates}` and `{candidate}`.
    """
    if prompt is None or prompt in BUILT_IN_PROMPTS:
        file = resources.files(__package__).joinpath(f"{prompt or 'ranking'}.txt")
        return file.read_text("utf-8").rstrip("\n")
    path = Path(prompt)
    try:
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: prompt template cannot be read ({error})") from None
    _check_fields(text, path)
    return text


def render(
    template: str,
    history_titles: Sequence[str],
    candidate_titles: Sequence[str],
    marks: Sequence[str] | None = None,
    hints: str = "",
) -> str:
    """Fill a template: history separated by semicolons, one candidate per line.

    A mark stands before each candidate, so that its title follows a space as an answer does.

    Args:
        template: text of `load_template`.
        history_titles: oldest first.
        candidate_titles: as the prompt lists them.
        marks: of each candidate; None is a hyphen for all.
        hints: text for `{hints}`.
    """
    marks = [_MARK] * len(candidate_titles) if marks is None else marks
    lines = [f"{mark} {title}" for mark, title in zip(marks, candidate_titles, strict=True)]
    return template.format(
        history="; ".join(history_titles), candidates="\n".join(lines), hints=hints
    )


def is_pointwise(template: str) -> bool:
    """Whether a template asks about one candidate at a time."""
    return "{candidate}" in template


def lists_candidates(template: str) -> bool:
    """Whether a template's prompts list the candidates."""
    return "{candidates}" in template


def render_pointwise(template: str, history_titles: Sequence[str]) -> tuple[str, str]:
    """A pointwise template's text before and after the candidate's title.

    The text before it ends without the space that the title follows.

    Args:
        template: text of `load_template`.
        history_titles: oldest first.
    """
    filled = template.format(history="; ".join(history_titles), candidate=_CANDIDATE, hints="")
    before, _, after = filled.partition(_CANDIDATE)
    return before.removesuffix(" "), after


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
    required = [name for name in found if name != "hints"]
    if required not in _FIELDS or found.count("hints") > 1:
        listed = ", ".join(f"{{{name}}}" for name in found) or "none"
        raise InputError(
            f"{path}: expected {{history}} once, {{candidates}} or {{candidate}} at most once, "
            f"{{hints}} at most once and no other field, found {listed}"
        )
    if "candidate" in found and text.index("{history}") > text.index("{candidate}"):
        raise InputError(f"{path}: {{history}} has to stand before {{candidate}}")

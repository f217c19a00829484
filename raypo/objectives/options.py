"""Options of a part, declared where its fields are: what each means and which values it takes.

    rho: Annotated[float, fraction("share of the other users whose negatives are taken")] = 0.7

A part calls `validate_options` in `__post_init__`: a part with a wrong option cannot be made.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_type_hints


class OptionError(ValueError):
    """A wrong option; the message starts with the option's dotted name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True)
class Option:
    """One option of a part or a preset.

    Attributes:
        meaning: one line for people.
        expected: the values that it takes, in words.
        convert: value -> value of the option's type; raises ValueError for any other value.
        optional: whether None is a value too.
    """

    meaning: str
    expected: str
    convert: Callable[[object], object]
    optional: bool = False

    def parse(self, name: str, value: object) -> object:
        """Convert a value to the option's type: 4.0 negatives are 4.

        Args:
            name: what an error calls the option.
            value: as the user gave it.

        Raises:
            OptionError: the option does not take this value.
        """
        if value is None and self.optional:
            return None
        try:
            return self.convert(value)
        except ValueError:
            raise OptionError(name, f"expected {self.expected}, got {value!r}") from None


def number(meaning: str, optional: bool = False) -> Option:
    """Option that takes any finite number."""
    return Option(meaning, "a number", _as_number, optional)


def positive(meaning: str) -> Option:
    """Option that takes a number above 0."""
    return _number_where(lambda value: value > 0, meaning, "a number above 0")


def fraction(meaning: str) -> Option:
    """Option that takes a number from 0 to 1."""
    return _number_where(lambda value: 0 <= value <= 1, meaning, "a number from 0 to 1")


def below_half(meaning: str) -> Option:
    """Option that takes a number from 0 to below 0.5."""
    return _number_where(lambda value: 0 <= value < 0.5, meaning, "a number from 0 to below 0.5")


def positive_int(meaning: str) -> Option:
    """Option that takes a whole number above 0."""

    def convert(value: object) -> int:
        parsed = _as_number(value)
        if parsed < 1 or not parsed.is_integer():
            raise ValueError
        return int(parsed)

    return Option(meaning, "a whole number above 0", convert)


def switch(meaning: str) -> Option:
    """Option that takes true or false, or 1 or 0 for them, as every other setting does."""

    def convert(value: object) -> bool:
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise ValueError
        return bool(value)

    return Option(meaning, "true or false", convert)


def one_of(choices: Sequence[str], meaning: str, optional: bool = False) -> Option:
    """Option that takes one of several words."""

    def convert(value: object) -> object:
        if value not in choices:
            raise ValueError
        return value

    return Option(meaning, f"one of {', '.join(choices)}", convert, optional)


def function(meaning: str) -> Option:
    """Option that takes a Python function or None."""

    def convert(value: object) -> object:
        if not callable(value):
            raise ValueError
        return value

    return Option(meaning, "a Python function", convert, optional=True)


def options_of(part: type) -> dict[str, Option]:
    """Options of a part's class by name, in the order of its fields."""
    hints = get_type_hints(part, include_extras=True)
    return {
        name: extra
        for name, hint in hints.items()
        for extra in getattr(hint, "__metadata__", ())
        if isinstance(extra, Option)
    }


def validate_options(part: object) -> None:
    """Convert a frozen part's options to their types.

    Raises:
        OptionError: a value that an option does not take.
    """
    for name, option in options_of(type(part)).items():
        object.__setattr__(part, name, option.parse(name, getattr(part, name)))


def require_known(
    name: str, what: str, given: object, known: Iterable[str], similar: Iterable[str] = ()
) -> None:
    """Require that a name or value is a known one.

    Args:
        name: dotted name of the option that is wrong.
        what: start of the sentence, such as `unknown objective`.
        given: the value or name to look for.
        known: what there is.
        similar: further words that may have been meant.

    Raises:
        OptionError: `given` is not known; names the nearest that is, or all.
    """
    known = list(known)
    if given in known:
        return
    near = difflib.get_close_matches(str(given), [*known, *similar], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    raise OptionError(name, f"{what} {given!r}; {hint}")


def _as_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _number_where(accepts: Callable[[float], bool], meaning: str, expected: str) -> Option:
    def convert(value: object) -> float:
        parsed = _as_number(value)
        if not accepts(parsed):
            raise ValueError
        return parsed

    return Option(meaning, expected, convert)

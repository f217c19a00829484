"""Times of interactions, converted to seconds since 1970."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raypo.config import InputError

# Seconds of each unit of a number.
UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
# A number belongs to the first unit in which it is below this many seconds, the year 5138: no log
# is later, and in the next smaller unit the same number is in 1973, which hardly a log reaches.
_LATEST = 1e11
# Below this, numbers belong to every unit: they are counters, or missing times written as 0.
_SMALLEST = 1e8
_LARGEST = _LATEST / UNITS["nanoseconds"]


def guess_time_format(texts: pd.Series) -> str:
    """A unit of `UNITS` or `iso`, inferred from the first rows of a log, for all of it.

    Args:
        texts: some times as in the file.
    """
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) * 2 < len(texts):
        return "iso"
    sizes = numbers.abs()
    median = sizes[sizes < _LARGEST].median()
    return "seconds" if np.isnan(median) else str(units_of(np.array([median]))[0])


def units_of(numbers: np.ndarray) -> np.ndarray:
    """The unit that each number would have in a log of our times."""
    names = np.array(list(UNITS), dtype=object)
    limits = [_LATEST / seconds for seconds in UNITS.values()]
    place = np.searchsorted(limits, np.abs(numbers), side="right")
    found: np.ndarray = names[np.minimum(place, len(names) - 1)]
    return found


def check_time_format(name: str) -> None:
    """Refuse a format that `parse_times` does not know."""
    if name not in ("auto", *UNITS, "iso") and "%" not in name:
        raise InputError(
            f"time_format {name!r}: expected auto, {', '.join(UNITS)}, iso or a pattern such as "
            "%Y-%m-%d %H:%M"
        )


def parse_times(texts: pd.Series, time_format: str) -> np.ndarray:
    """Seconds since 1970-01-01 UTC, NaN for a text in another format or unit.

    Args:
        texts: times as in the file.
        time_format: a unit of `UNITS`, `iso` (with or without a zone; without is UTC), or a pattern
            of `strptime`.

    Returns:
        float64, [rows]; 0 and negative times are valid.
    """
    if time_format in UNITS:
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64", copy=True)
        numbers[~_of_unit(numbers, time_format)] = np.nan
        return np.asarray(numbers * UNITS[time_format])
    pattern = "ISO8601" if time_format == "iso" else time_format
    times = pd.to_datetime(texts, errors="coerce", format=pattern, utc=True).dt.as_unit("us")
    seconds = times.astype("int64").to_numpy() / 1e6
    seconds[times.isna().to_numpy()] = np.nan
    return np.asarray(seconds)


def expected_time(text: str, time_format: str) -> str:
    """What a text that `parse_times` does not read should have been, for a message."""
    if time_format not in UNITS:
        return f"a time ({time_format})"
    number = pd.to_numeric(pd.Series([text]), errors="coerce").to_numpy(dtype="float64")
    if not (np.abs(number) < _LARGEST).all():
        return f"a number of {time_format}"
    return (
        f"{time_format}, as the first rows have or time_format says; it would be "
        f"{units_of(number)[0]}"
    )


def _of_unit(numbers: np.ndarray, unit: str) -> np.ndarray:
    """Whether each number can be of the unit, [rows]; a log that mixes units has no order."""
    with np.errstate(invalid="ignore"):
        known = np.abs(numbers) < _LARGEST
        size = np.abs(np.where(known, numbers, 0.0))
        return np.asarray(known & ((size < _SMALLEST) | (units_of(size) == unit)))

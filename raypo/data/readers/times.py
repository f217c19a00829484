"""Times of interactions, converted to seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd

from raypo.errors import InputError

PER_SECOND = {
    "seconds": 1.0,
    "milliseconds": 1e3,
    "microseconds": 1e6,
    "nanoseconds": 1e9,
}
AS_THEY_ARE = "numbers as they are"
_NUMERIC = ("numbers", "mixed", *PER_SECOND)
_LARGEST = 2.0**53  # float64 does not represent every integer beyond it
_LARGEST_NANOSECONDS = 2.0**63
# 1990 to 2100, in seconds. The units' ranges do not overlap. Its end is fixed, so that the same log
# gives the same data set on any day.
_PLAUSIBLE = (631_152_000.0, 4_102_444_800.0)
_EDGES = np.array([edge * unit for unit in PER_SECOND.values() for edge in _PLAUSIBLE])


class TimesInUnit(TypedDict):
    """Times of a file that are plausible in one unit: how many, and the first one."""

    count: int
    line: int
    text: str


def guess_time_format(texts: pd.Series) -> str:
    """`numbers` or `iso`, inferred from the first rows of a log, for all of it.

    Args:
        texts: some times as in the file.
    """
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    return "iso" if int(np.isfinite(numbers).sum()) * 2 < len(texts) else "numbers"


def check_time_format(name: str) -> None:
    """Refuse a format that `parse_times` does not know."""
    known = ("auto", *PER_SECOND, "mixed", "iso")
    if name not in known and "%" not in name:
        raise InputError(
            f"time_format {name!r}: expected {', '.join(known)}, or a pattern such as "
            "%Y-%m-%d %H:%M"
        )


def expected_time(time_format: str) -> str:
    """What `parse_times` reads, in words."""
    return "a number (below 2^53)" if time_format in _NUMERIC else f"a time ({time_format})"


def parse_times(texts: pd.Series, time_format: str) -> np.ndarray:
    """Seconds since 1970-01-01 UTC, NaN for a text in another format.

    Args:
        texts: times as in the file.
        time_format: `seconds`, `milliseconds`, `microseconds`, `nanoseconds`; `mixed`, any of these
            by the size of each number; `numbers`, whose unit is decided later by `units_of_files`
            and which are not converted; `iso` (with or without a zone; without is UTC); or a
            pattern of `strptime`.

    Returns:
        float64, [rows]; 0 and negative times are valid.
    """
    if time_format in _NUMERIC:
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64", copy=True)
        largest = np.full(len(numbers), _LARGEST)
        if time_format == "nanoseconds":
            largest[:] = _LARGEST_NANOSECONDS
        elif time_format in ("numbers", "mixed"):
            largest[_unit_indices(numbers) == len(PER_SECOND) - 1] = _LARGEST_NANOSECONDS
        with np.errstate(invalid="ignore"):
            numbers[~(np.abs(numbers) < largest)] = np.nan
        return np.asarray(numbers / _divisors(numbers, time_format))
    pattern = "ISO8601" if time_format == "iso" else time_format
    times = pd.to_datetime(texts, errors="coerce", format=pattern, utc=True).dt.as_unit("us")
    seconds = times.astype("int64").to_numpy() / 1e6
    seconds[times.isna().to_numpy()] = np.nan
    return np.asarray(seconds)


def _divisors(numbers: np.ndarray, time_format: str) -> np.ndarray | float:
    if time_format != "mixed":
        return PER_SECOND.get(time_format, 1.0)
    return np.asarray(np.append(list(PER_SECOND.values()), 1.0)[_unit_indices(numbers)])


def _unit_indices(numbers: np.ndarray) -> np.ndarray:
    """The unit in which each number is between 1990 and 2100; -1 for none, [rows]."""
    place = np.searchsorted(_EDGES, numbers, side="right")
    return np.where(place % 2 == 1, place // 2, -1)


def count_units(counts: dict[str, TimesInUnit], numbers: np.ndarray, lines: np.ndarray) -> None:
    """Add a chunk's times to the counts of its file, by the unit in which they are plausible."""
    indices = _unit_indices(numbers)
    for index, unit in enumerate(PER_SECOND):
        found = np.flatnonzero(indices == index)
        if not len(found):
            continue
        first = found[0]
        entry = TimesInUnit(count=0, line=int(lines[first]), text=f"{numbers[first]:.15g}")
        counts.setdefault(unit, entry)["count"] += len(found)


def units_of_files(files: Sequence[str], counts: Sequence[Mapping[str, TimesInUnit]]) -> list[str]:
    """The unit of each file's times, by the units in which its numbers lie after 1990.

    Numbers that are no times since 1990 in any unit, such as counters, are kept as they are. A file
    of these alone takes the unit of the other files.

    Args:
        files: locations.
        counts: of each file, from `count_units`.

    Returns:
        Keys of `PER_SECOND`, or `AS_THEY_ARE`, [files].

    Raises:
        InputError: a file mixes units, or it is unknown which one an undecided file has.
    """
    for file, units in zip(files, counts, strict=True):
        _refuse_mixed(file, units)
    decided = {unit for units in counts for unit in units}
    undecided = [file for file, units in zip(files, counts, strict=True) if not units]
    if undecided and len(decided) > 1:
        raise InputError(
            f"{undecided[0]}: its times may be {_listed(sorted(decided))}, like those of other "
            "files; name one in time_format"
        )
    other = next(iter(decided), AS_THEY_ARE)
    return [next(iter(units), other) for units in counts]


def _refuse_mixed(file: str, units: Mapping[str, TimesInUnit]) -> None:
    if len(units) < 2:
        return
    examples = [
        f"{one['count']:,} in {unit} (line {one['line']}: {one['text']})"
        for unit, one in units.items()
    ]
    raise InputError(
        f"{file}: its times mix units: {_listed(examples)}; `time_format=mixed` converts each by "
        "its size, `time_format=seconds` takes numbers as they are"
    )


def _listed(parts: Iterable[str]) -> str:
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last

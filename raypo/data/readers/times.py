"""Times of interactions, converted to seconds since 1970."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raypo.config import InputError

_LARGEST = 2.0**53  # float64 does not represent every integer beyond it
# The year 5138 if these are seconds, 1973 if they are milliseconds: no log is later than the one,
# hardly any is earlier than the other.
_MILLISECONDS_FROM = 1e11


def guess_time_format(texts: pd.Series) -> str:
    """`seconds`, `milliseconds` or `iso`, inferred from the first rows of a log, for all of it.

    Args:
        texts: some times as in the file.
    """
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) * 2 < len(texts):
        return "iso"
    return "milliseconds" if numbers.abs().median() >= _MILLISECONDS_FROM else "seconds"


def check_time_format(name: str) -> None:
    """Refuse a format that `parse_times` does not know."""
    if name not in ("auto", "seconds", "milliseconds", "iso") and "%" not in name:
        raise InputError(
            f"time_format {name!r}: expected auto, seconds, milliseconds, iso or a pattern such as "
            "%Y-%m-%d %H:%M"
        )


def parse_times(texts: pd.Series, time_format: str) -> np.ndarray:
    """Seconds since 1970-01-01 UTC, NaN for a text in another format.

    Args:
        texts: times as in the file.
        time_format: `seconds`, `milliseconds`, `iso` (with or without a zone; without is UTC), or a
            pattern of `strptime`.

    Returns:
        float64, [rows]; 0 and negative times are valid.
    """
    if time_format in ("seconds", "milliseconds"):
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64", copy=True)
        with np.errstate(invalid="ignore"):
            numbers[~(np.abs(numbers) < _LARGEST)] = np.nan
        return np.asarray(numbers / 1000 if time_format == "milliseconds" else numbers)
    pattern = "ISO8601" if time_format == "iso" else time_format
    times = pd.to_datetime(texts, errors="coerce", format=pattern, utc=True).dt.as_unit("us")
    seconds = times.astype("int64").to_numpy() / 1e6
    seconds[times.isna().to_numpy()] = np.nan
    return np.asarray(seconds)

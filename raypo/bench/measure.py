"""Time and peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measurement:
    """Time and memory of one variant.

    Attributes:
        seconds: of each repetition.
        peak_bytes: peak memory above the memory in use before the call; None where the system
            does not report it (outside Linux, without a GPU).
    """

    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def best(self) -> float:
        """The fastest repetition, which other processes disturbed least."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median over repetitions."""
        return statistics.median(self.seconds)


def measure_in_turn(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    on_call: Callable[[str, int], None] = lambda name, turn: None,
) -> dict[str, Measurement]:
    """Measure several calls, interleaved.

    Every round runs each call once, so that a busy moment of the machine does not slow a single
    variant down. One more round, not counted, warms up.

    Args:
        calls: what to run, by name.
        device: synchronised around each call.
        repeats: rounds that count.
        on_call: called with the name and the round before each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    peaks: dict[str, list[int]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            on_call(name, turn)
            gc.collect()
            before = _reset_peak(device)
            synchronise(device)
            started = time.perf_counter()
            call()
            synchronise(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
                peak = _peak(device)
                if before is not None and peak is not None:
                    peaks[name].append(max(0, peak - before))
    return {
        name: Measurement(tuple(seconds[name]), min(peaks[name], default=None)) for name in calls
    }


def write_csv(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, atomically."""
    import pandas as pd

    from raypo.io.files import atomic_path

    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        pd.DataFrame(list(rows)).to_csv(temporary, index=False)


def synchronise(device: torch.device) -> None:
    """Wait for what the device still runs."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> int | None:
    """Reset the peak to the bytes in use now, and return them."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    _release_freed_memory()
    try:
        _CLEAR.write_text("5")  # Linux: resets the high-water mark
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _release_freed_memory() -> None:
    """Return freed memory to the system: reusing it would hide what the next call takes."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{key}:")]
    return int(found[0].split()[1]) * 1024 if found else None

"""Time that a rank spends in collectives, on the CPU or on a GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class CollectiveTimer:
    """Sums the time of collectives, without making the host wait for a GPU at each of them."""

    _seconds: float = 0.0
    _pending: list[tuple[Any, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def measure(self, device: torch.device) -> Iterator[None]:
        """Count the block's time.

        Args:
            device: device of the tensors. On a GPU the block returns before its collective has run;
                events in the stream, which waits for it, mark its beginning and end.
        """
        if device.type == "cuda":
            start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            start.record()
            yield
            end.record()
            self._pending.append((start, end))
            return
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def seconds(self) -> float:
        """Seconds so far; waits for the collectives that a GPU still runs."""
        for start, end in self._pending:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1000
        self._pending.clear()
        return self._seconds

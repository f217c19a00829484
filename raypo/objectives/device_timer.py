"""Time of pieces of work, on the CPU or on a GPU, without making the host wait for the GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class DeviceTimer:
    """Sums the time of blocks of code; on a GPU, of what they have it do."""

    _seconds: float = 0.0
    _pending: list[tuple[Any, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def measure(self, device: torch.device) -> Iterator[None]:
        """Count the block's time.

        Args:
            device: device of the tensors. A GPU's work has not run when the block ends; events in
                its stream mark the beginning and the end.
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
        """Seconds so far; waits for what a GPU still runs."""
        for start, end in self._pending:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1000
        self._pending.clear()
        return self._seconds

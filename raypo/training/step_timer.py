"""Where a step's time goes."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

import torch

PHASES = ("data", "reference", "forward", "objective", "backward", "optimiser")


class Phases:
    """Seconds of each phase of one optimiser step, micro-batches added up.

    `data` is drawing and packing, `reference` looking up or computing reference log-probs,
    `objective` the loss with its gathers between workers, `optimiser` the step with what the engine
    reduces in it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as this phase's."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # else the time would be the next phase's
        self._seconds[name] += time.perf_counter() - started

    def metrics(self, tokens: int, collective_seconds: float) -> dict[str, float]:
        """Seconds of the step, tokens a second, shares of the time, and this worker's peak memory.

        Args:
            tokens: of all workers, each computed once.
            collective_seconds: that the objective's gathers and reductions took, forward and
                backward; a part of the phases in which they happen.
        """
        seconds = time.perf_counter() - self._started
        shares = {f"time/{name}": spent / seconds for name, spent in self._seconds.items()}
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            **shares,
            "time/collectives": collective_seconds / seconds,
            "peak_memory_gib": _peak_bytes(self._device) / 2**30,
        }


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this worker has held: of its GPU, or of its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

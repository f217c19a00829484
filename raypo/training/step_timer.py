"""Time of each phase of an optimiser step."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

import torch

PHASES = ("data", "reference", "forward", "objective", "backward", "optimiser")


class StepTimer:
    """Seconds of each phase of one optimiser step, summed over micro-batches.

    - `data`: drawing and packing users.
    - `reference`: looking up or computing reference log-probs.
    - `forward`, `backward`: of the policy.
    - `objective`: the loss, with its gathers between ranks.
    - `optimiser`: the optimiser step, with the engine's reductions in it.
    """

    def __init__(self, device: torch.device) -> None:
        """Start the step's clock.

        Args:
            device: device of the policy; a GPU is synchronised at the end of each phase.
        """
        self._device = device
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to the phase `name` of `PHASES`."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            # Kernels run asynchronously; their time would count as the next phase's.
            torch.cuda.synchronize(self._device)
        self._seconds[name] += time.perf_counter() - started

    def metrics(self, num_tokens: int, collective_seconds: float) -> dict[str, float]:
        """Seconds of the step, tokens per second, time shares and this rank's peak memory.

        Args:
            num_tokens: tokens that all ranks computed.
            collective_seconds: time of the objective's gathers and reductions in forward and
                backward. It is part of the phases in which they happen.
        """
        seconds = time.perf_counter() - self._started
        shares = {f"time/{name}": spent / seconds for name, spent in self._seconds.items()}
        return {
            "seconds": seconds,
            "tokens_per_second": num_tokens / seconds,
            **shares,
            "time/collectives": collective_seconds / seconds,
            "peak_memory_gib": _peak_bytes(self._device) / 2**30,
        }


def _peak_bytes(device: torch.device) -> int:
    """Peak memory of this rank: of its GPU, or of its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

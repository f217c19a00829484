"""Time of each phase of an optimiser step."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import AbstractContextManager

import torch

from raypo.objectives.device_timer import DeviceTimer

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
            device: device of the policy. On a GPU events in its stream mark the phases, so that the
                host goes on; a phase's time is then what the GPU ran or waited between its marks.
        """
        self._device = device
        self._timers = {name: DeviceTimer() for name in PHASES}
        self._started = time.perf_counter()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Add the block's time to the phase `name` of `PHASES`."""
        return self._timers[name].measure(self._device)

    def metrics(self, num_tokens: int, collective_seconds: float) -> dict[str, float]:
        """Seconds of the step, tokens per second, time shares and this rank's peak memory.

        Args:
            num_tokens: tokens that all ranks computed.
            collective_seconds: time of the objective's gathers and reductions in forward and
                backward. It is part of the phases in which they happen.
        """
        spent = {name: timer.seconds() for name, timer in self._timers.items()}  # waits for a GPU
        seconds = time.perf_counter() - self._started
        shares = {f"time/{name}": each / seconds for name, each in spent.items()}
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

"""Refuses negative sets that no step could hold, before they are made.

A rank's sets have b n (1 + K) members in all: with a fixed rho they grow with b B. Several tensors
of that size exist at once (ids, log-probs, rewards, margins, masks, and their gradients).
"""

from __future__ import annotations

import math
import os

import torch

# Peak memory of a step's objective per member of a set, measured by `raypo bench objectives` with
# presets s-dpo+ns and napo: 42 to 70 bytes where sets are large.
BYTES_PER_NEGATIVE = 64


def require_memory(
    users: int, num_users: int, num_negatives: int, rho: float, num_similar: int, memory: int | None
) -> None:
    """Require that the negative sets of a rank can fit into its memory.

    Args:
        users: b, of the rank with the most users: ranks with equal memory refuse alike.
        num_users: B, the global batch.
        num_negatives: n, sampled per user.
        rho: fraction of the global batch that is shared with.
        num_similar: K.
        memory: all bytes of the device; None where unknown, which requires nothing.

    Raises:
        ValueError: they cannot; the message says which rho could.
    """
    set_size = num_negatives * (1 + num_similar)
    needed = users * set_size * BYTES_PER_NEGATIVE
    if memory is None or needed <= memory:
        return
    affordable = memory / (users * num_negatives * BYTES_PER_NEGATIVE) - 1
    most = max(0.0, affordable / max(1, num_users - 1))
    # Rounded down to two digits: what the message advises must fit.
    digits = 1 - math.floor(math.log10(most)) if most > 0 else 0
    advised = math.floor(most * 10**digits) / 10**digits
    lower = f"Set rho to {advised:g} or less, or spread" if advised else "Spread"
    raise ValueError(
        f"sharing with rho {rho:g} among {num_users:,} users gives each of a rank's {users:,} "
        f"users {set_size:,} negatives; a step takes about {needed / 2**30:,.0f} GiB, and the "
        f"device has {memory / 2**30:,.0f} GiB. {lower} the users over more ranks"
    )


def device_memory(device: torch.device) -> int | None:
    """All bytes of a GPU's memory or, for the CPU, of the machine's; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on this system
        return None

"""The learning rate as a function of the step alone, so that resuming needs no state."""

from __future__ import annotations

import math


def learning_rate(step: int, total_steps: int, peak: float, warmup_ratio: float) -> float:
    """Linear warm-up to `peak`, then cosine decay towards zero.

    Args:
        step: optimiser step about to be taken, from 0.
        total_steps: optimiser steps of the whole run.
        peak: highest learning rate.
        warmup_ratio: share of the steps spent warming up.
    """
    warmup = max(1, round(total_steps * warmup_ratio))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))

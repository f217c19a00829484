"""Learning rate and curriculum as functions of the step alone, so that resuming needs no state."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

_CURRICULUM = 2  # number of this stream of random draws


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


def reads_vectors(
    curriculum: Literal["none", "linear"], step: int, total_steps: int, seed: int
) -> bool:
    """Whether a step's prompts have vectors; otherwise their markers are plain tokens.

    LLaRA's curriculum (arXiv 2312.02445, section 3.3): with probability step / total_steps, one
    draw a step.

    Args:
        curriculum: `none` has vectors in all steps.
        step: optimiser step, from 0.
        total_steps: optimiser steps of the whole run.
        seed: of the draws.
    """
    if curriculum == "none":
        return True
    return bool(np.random.default_rng([seed, step, _CURRICULUM]).random() < step / total_steps)

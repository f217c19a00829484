"""Mean and standard deviation over the pairs of the global batch, and their moving averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of the values of the valid pairs of the global batch.

    Attributes:
        count: number of pairs.
        mean: 0 without pairs.
        std: population standard deviation.
    """

    count: float
    mean: float
    std: float


def local_moments(values: Tensor, valid: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations [3] of the valid values, float64."""
    values = torch.where(valid, values.double(), 0.0)
    count = valid.sum().double()
    mean = values.sum() / count.clamp(min=1)
    squares = torch.where(valid, (values - mean) ** 2, 0.0).sum()
    return torch.stack([count, mean, squares])


def merge_moments(moments: Tensor) -> Moments:
    """Merge the moments [W, 3] of all ranks; the result has the same bits on every rank.

    Chan et al.'s pairwise formula. A sum of squares would lose the digits in a difference.
    """
    count, mean, squares = 0.0, 0.0, 0.0
    for other_count, other_mean, other_squares in moments.tolist():
        if not other_count:
            continue
        joined = count + other_count
        difference = other_mean - mean
        mean += difference * other_count / joined
        squares += other_squares + difference**2 * count * other_count / joined
        count = joined
    return Moments(count, mean, (squares / count) ** 0.5 if count else 0.0)


def join_moments(parts: Sequence[Moments]) -> Moments:
    """Moments of the pairs of several batches together."""
    values = [(part.count, part.mean, part.std**2 * part.count) for part in parts]
    return merge_moments(torch.tensor(values, dtype=torch.float64))


def moving_average(momentum: float, previous: float, current: float) -> float:
    """The next value of a moving average: m previous + (1 - m) current."""
    return momentum * previous + (1 - momentum) * current

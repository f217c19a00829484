"""What the parts of an objective look at in one step, and the statistics that they keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch


@dataclass(frozen=True)
class Step:
    """One step's negatives as this worker's users see them; nothing here carries gradient.

    Attributes:
        batch: as the caller gave it.
        beta: the temperature's base value.
        chosen_logps: [b] float32.
        rejected_logps: [b, E] of the negatives in E_u.
        items: [b, E] item ids, None where the caller gave none.
        valid: [b, E] False where a negative is masked out.
        gaps: m+ - m-_i [b, E] for each part that measures pairs by a reward of its own.
    """

    batch: PreferenceBatch
    beta: float
    chosen_logps: Tensor
    rejected_logps: Tensor
    items: Tensor | None
    valid: Tensor
    gaps: Mapping[str, Tensor]


@dataclass(frozen=True)
class Moments:
    """Of the values of the valid pairs of the global batch.

    Attributes:
        count: pairs. mean: 0 without pairs. std: population standard deviation.
    """

    count: float
    mean: float
    std: float


@dataclass(frozen=True)
class Reading:
    """What a temperature or margin is in a step.

    Attributes:
        value: scalar or [b, E], without gradient.
        metrics: to be reported.
        after: statistics as the next step will find them.
    """

    value: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


Statistics = Mapping[str, float]


def local_moments(values: Tensor, valid: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations [3] of the valid values, float64."""
    values = torch.where(valid, values.double(), 0.0)
    count = valid.sum().double()
    mean = values.sum() / count.clamp(min=1)
    squares = torch.where(valid, (values - mean) ** 2, 0.0).sum()
    return torch.stack([count, mean, squares])


def merge_moments(parts: Tensor) -> Moments:
    """Moments of the union from the workers' [W, 3], the same bits on every worker.

    Chan et al.'s pairwise formula: no sum of squares, whose difference would lose the digits.
    """
    count, mean, squares = 0.0, 0.0, 0.0
    for other_count, other_mean, other_squares in parts.tolist():
        if not other_count:
            continue
        joined = count + other_count
        distance = other_mean - mean
        mean += distance * other_count / joined
        squares += other_squares + distance**2 * count * other_count / joined
        count = joined
    return Moments(count, mean, (squares / count) ** 0.5 if count else 0.0)


def moving_average(momentum: float, before: float, now: float) -> float:
    """The next value, m before + (1 - m) now."""
    return momentum * before + (1 - momentum) * now


def as_tensor(value: float, like: Tensor) -> Tensor:
    """A float32 scalar on the device of `like`."""
    return torch.tensor(value, dtype=torch.float32, device=like.device)

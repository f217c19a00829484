"""What the parts of an objective read of one step, and what they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch

Statistics = Mapping[str, float]


@dataclass(frozen=True)
class LossContext:
    """One step's negatives as this rank's users see them; nothing here carries gradient.

    Attributes:
        batch: as the caller gave it.
        beta: the temperature's base value.
        chosen_logps: [b] float32.
        rejected_logps: [b, E] of the negatives in E_u.
        items: [b, E] item ids, None where the caller gave none.
        valid: [b, E] False where a negative is masked out.
        reward_margins: m+ - m-_i [b, E] for each part that measures pairs by a reward of its own.
    """

    batch: PreferenceBatch
    beta: float
    chosen_logps: Tensor
    rejected_logps: Tensor
    items: Tensor | None
    valid: Tensor
    reward_margins: Mapping[str, Tensor]


@dataclass(frozen=True)
class ParamValue:
    """The value of a temperature or margin in one step.

    Attributes:
        value: scalar or [b, E], without gradient.
        metrics: to report.
    """

    value: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


def as_tensor(value: float, like: Tensor) -> Tensor:
    """A float32 scalar on the device of `like`."""
    return torch.tensor(value, dtype=torch.float32, device=like.device)

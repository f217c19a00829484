"""AdamW's state as named tensors: what both engines save and restore."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from raypo.policy.logps import PackedPolicy

MOMENTS = ("exp_avg", "exp_avg_sq")
# AdamW's own count of its steps: DeepSpeed's stage 0 begins at 1, with an empty step of its own.
STEPS = "/steps"


def steps_of(optimiser: Any) -> Tensor:
    """AdamW's step count, as a float32 scalar."""
    values = next(iter(optimiser.state.values()))
    return torch.as_tensor(values["step"], dtype=torch.float32).detach().cpu().clone()


def trained(policy: PackedPolicy) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name without the wrapper."""
    return {name: p for name, p in policy.model.named_parameters() if p.requires_grad}

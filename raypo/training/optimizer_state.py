"""AdamW's state as named tensors, which both engines save and restore."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypo.policy.logps import PackedPolicy

MOMENTS = ("exp_avg", "exp_avg_sq")
# AdamW's own step count. It is saved because DeepSpeed's stage 0 starts at 1, after an empty step.
STEPS = "/steps"
PROJECTOR = "projector."  # before the names of the projector's parameters


def step_count(optimiser: torch.optim.Optimizer) -> Tensor:
    """AdamW's step count, as a float32 scalar."""
    values = next(iter(optimiser.state.values()))
    return torch.as_tensor(values["step"], dtype=torch.float32).detach().cpu().clone()


def trainable_parameters(policy: PackedPolicy) -> dict[str, nn.Parameter]:
    """Trainable parameters by their name in `policy.model`, and those of the projector."""
    named = dict(policy.model.named_parameters())
    if policy.projector is not None:
        inner = policy.projector.named_parameters()
        named |= {f"{PROJECTOR}{name}": parameter for name, parameter in inner}
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

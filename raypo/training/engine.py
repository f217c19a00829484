"""What takes a step: DeepSpeed, or plain torch where DeepSpeed is not wanted.

Both average gradients over the workers of the default process group, keep float32 master weights
of the adapter, clip the global gradient norm and run AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypo.config import ClusterConfig, OptimiserConfig
from raypo.policy.logps import PackedPolicy
from raypo.policy.packing import PackedResponses
from raypo.training.optimizer_state import MOMENTS, STEPS, steps_of, trained


class Engine(Protocol):
    """A policy that can be stepped."""

    policy: PackedPolicy
    device: torch.device

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m], with gradient."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of one micro-batch's loss."""

    def step(self, learning_rate: float) -> float:
        """Take an optimiser step after the last micro-batch; the global gradient norm."""

    def trained_weights(self) -> dict[str, Tensor]:
        """The adapter's float32 weights on the CPU by parameter name. Every worker calls it."""

    def optimiser_state(self) -> dict[str, Tensor]:
        """Float32 weights and AdamW's moments on the CPU. Every worker calls it."""

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` gave."""


def make_engine(
    policy: PackedPolicy,
    optimiser: OptimiserConfig,
    cluster: ClusterConfig,
    gradient_accumulation_steps: int,
    micro_batch_size: int,
    dtype: str,
) -> Engine:
    """The engine that `cluster.engine` names, around `policy`."""
    if cluster.engine == "torch":
        return TorchEngine(policy, optimiser, gradient_accumulation_steps)
    from raypo.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(
        policy, optimiser, cluster.zero_stage, gradient_accumulation_steps, micro_batch_size, dtype
    )


class TorchEngine:
    """Plain torch: AdamW and one all-reduce of the gradients a step."""

    def __init__(
        self, policy: PackedPolicy, optimiser: OptimiserConfig, gradient_accumulation_steps: int
    ) -> None:
        self.device = _device()
        self.policy = policy.to(self.device)
        self._accumulation = gradient_accumulation_steps
        self._clip = optimiser.max_grad_norm
        self._named = trained(policy)
        self._optimiser = torch.optim.AdamW(
            self._named.values(), lr=0.0, weight_decay=optimiser.weight_decay
        )

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m]."""
        sums: Tensor = self.policy(packed)
        return sums

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of one micro-batch's loss."""
        torch.autograd.backward(loss / self._accumulation)

    def step(self, learning_rate: float) -> float:
        """Average gradients over workers, clip, step; the gradient norm."""
        parameters = list(self._named.values())
        _average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self._clip)
        self._optimiser.param_groups[0]["lr"] = learning_rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        return float(norm)

    def trained_weights(self) -> dict[str, Tensor]:
        """The adapter's float32 weights by parameter name."""
        return {name: p.detach().float().cpu().clone() for name, p in self._named.items()}

    def optimiser_state(self) -> dict[str, Tensor]:
        """Float32 weights and AdamW's moments."""
        state = self.trained_weights()
        for name, parameter in self._named.items():
            for moment in MOMENTS:
                value = self._optimiser.state[parameter][moment]
                state[f"{name}/{moment}"] = value.detach().cpu().clone()
        return state | {STEPS: steps_of(self._optimiser)}

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` gave."""
        for name, parameter in self._named.items():
            parameter.data.copy_(state[name])
            moments = {moment: state[f"{name}/{moment}"].to(parameter) for moment in MOMENTS}
            self._optimiser.state[parameter] = {"step": state[STEPS].clone(), **moments}


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for parameter in parameters:
        if parameter.grad is not None:
            count = parameter.grad.numel()
            parameter.grad.copy_(flat[offset : offset + count].view_as(parameter.grad))
            offset += count


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")

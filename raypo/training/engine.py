"""Engines: forward, backward and optimiser step of a policy, by plain torch or DeepSpeed.

Both keep the adapter's weights and accumulate their gradients in float32, whatever the precision of
the base model, average gradients over the ranks of the default process group, clip the global
gradient norm and run AdamW.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypo.policy.logps import PackedPolicy
from raypo.policy.packing import PackedResponses
from raypo.training.optimizer_state import (
    MOMENTS,
    PROJECTOR,
    STEPS,
    step_count,
    trainable_parameters,
)

if TYPE_CHECKING:
    from raypo.config import ClusterConfig, OptimiserConfig


@dataclass(frozen=True)
class StepConfig:
    """How an engine takes optimiser steps.

    Attributes:
        optimiser: AdamW's settings and the gradient norm to clip to.
        micro_batch_size: users per rank and forward pass.
    """

    optimiser: OptimiserConfig
    micro_batch_size: int


class Engine(Protocol):
    """A policy that can be trained."""

    policy: PackedPolicy
    device: torch.device

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m], with gradient."""

    def backward(self, logps: Tensor, gradient: Tensor, is_last: bool) -> None:
        """Accumulate the gradients of one micro-batch, in float32.

        Every rank calls it as often in a step, with the last micro-batch marked.

        Args:
            logps: [b, m], the result of `logps`.
            gradient: [b, m] derivative of this rank's share of the step's loss for them.
            is_last: whether the optimiser step follows.
        """

    def step(self, learning_rate: float, projector_rests: bool = False) -> float:
        """Take an optimiser step after the last micro-batch.

        Args:
            learning_rate: of this step.
            projector_rests: keep the projector's weights and moments as they are. The step that
                AdamW corrects moments by is common to all weights, and counts on.

        Returns:
            The global norm of the gradients before clipping. Where it is not finite, no step was
            taken.
        """

    def trained_weights(self) -> dict[str, Tensor]:
        """The adapter's float32 weights by parameter name, on the CPU. Every rank calls it."""

    def optimiser_state(self) -> dict[str, Tensor]:
        """Float32 weights and AdamW's moments, on the CPU. Every rank calls it."""

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` returned."""


def make_engine(policy: PackedPolicy, cluster: ClusterConfig, config: StepConfig) -> Engine:
    """Wrap `policy` in the engine that `cluster.engine` names.

    Args:
        policy: on the CPU or on this rank's device.
        cluster: engine and ZeRO stage.
        config: how the engine takes optimiser steps.
    """
    if cluster.engine == "torch":
        return TorchEngine(policy, config)
    from raypo.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(policy, cluster.zero_stage, config)


def loading(cluster: ClusterConfig, dtype: str) -> contextlib.AbstractContextManager[None]:
    """Context in which the base model of an engine is loaded.

    Args:
        cluster: engine and ZeRO stage; with stage 3 the model is loaded partitioned.
        dtype: precision of the base model.
    """
    if not cluster.partitions_weights:
        return contextlib.nullcontext()
    from raypo.training.deepspeed_engine import partitioned_loading

    return partitioned_loading(dtype)


def gathered(
    cluster: ClusterConfig, parameters: list[nn.Parameter]
) -> contextlib.AbstractContextManager[None]:
    """Context in which this rank holds whole parameters, where ZeRO stage 3 partitions them."""
    if not cluster.partitions_weights:
        return contextlib.nullcontext()
    from raypo.training.deepspeed_engine import gathered_parameters

    return gathered_parameters(parameters)


class TorchEngine:
    """Plain torch: AdamW, and one all-reduce of the gradients per step."""

    def __init__(self, policy: PackedPolicy, config: StepConfig) -> None:
        """Move the policy to this rank's device and make its optimiser."""
        self.device = _device()
        self.policy = policy.to(self.device)
        self._max_grad_norm = config.optimiser.max_grad_norm
        self._named = trainable_parameters(policy)
        self._optimiser = torch.optim.AdamW(
            self._named.values(), lr=0.0, weight_decay=config.optimiser.weight_decay
        )

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m]."""
        sums: Tensor = self.policy(packed)
        return sums

    def backward(self, logps: Tensor, gradient: Tensor, is_last: bool) -> None:
        """Accumulate the gradients of one micro-batch."""
        torch.autograd.backward(logps, gradient)

    def step(self, learning_rate: float, projector_rests: bool = False) -> float:
        """Average gradients over ranks, clip, step; returns the norm before clipping."""
        kept = self._projector_state() if projector_rests else {}
        for parameter in kept:
            parameter.grad = torch.zeros_like(parameter)
        parameters = list(self._named.values())
        _average_gradients(parameters)
        norm = float(nn.utils.clip_grad_norm_(parameters, self._max_grad_norm))
        if math.isfinite(norm):
            self._optimiser.param_groups[0]["lr"] = learning_rate
            self._optimiser.step()
        for parameter, (weight, moments) in kept.items():
            parameter.data.copy_(weight)
            self._optimiser.state[parameter].update(moments)
        self._optimiser.zero_grad()
        return norm

    def _projector_state(self) -> dict[nn.Parameter, tuple[Tensor, dict[str, Tensor]]]:
        """Copies of the projector's weights and moments."""
        found = {}
        for name, parameter in self._named.items():
            if name.startswith(PROJECTOR):
                state = self._optimiser.state.get(parameter, {})
                moments = {
                    moment: state[moment].clone()
                    if moment in state
                    else torch.zeros_like(parameter)
                    for moment in MOMENTS
                }
                found[parameter] = parameter.detach().clone(), moments
        return found

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
        return state | {STEPS: step_count(self._optimiser)}

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` returned."""
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

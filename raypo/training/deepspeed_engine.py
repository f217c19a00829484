"""The DeepSpeed engine, with ZeRO stage 0, 2 or 3. The only module that imports deepspeed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypo.io.environment import set_deepspeed_accelerator
from raypo.policy.logps import PackedPolicy
from raypo.policy.packing import PackedResponses
from raypo.training.engine import StepConfig
from raypo.training.optimizer_state import (
    MOMENTS,
    STEPS,
    step_count,
    trainable_parameters,
)


class DeepSpeedEngine:
    """DeepSpeed with ZeRO stage 0, 2 or 3."""

    def __init__(self, policy: PackedPolicy, zero_stage: int, config: StepConfig) -> None:
        """Initialise DeepSpeed, and the process group where there is none yet."""
        deepspeed = _import_deepspeed()
        _init_single_process()
        parameters = list(trainable_parameters(policy).values())
        with _silence_stdout():
            self._engine, self._optimiser, _, _ = deepspeed.initialize(
                model=policy,
                model_parameters=parameters,
                config=_deepspeed_config(zero_stage, config),
                dist_init_required=False,
            )
        self.policy = policy
        self.device = torch.device(self._engine.device)
        self._named = trainable_parameters(policy)
        # Stages 2 and 3 partition what is stepped; DeepSpeed's accessors put it together.
        self._masters = (
            _unpartitioned_masters(self._named, self._optimiser) if zero_stage == 0 else None
        )

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m]."""
        sums: Tensor = self._engine(packed)
        return sums

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of one micro-batch's loss."""
        self._engine.backward(loss)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def step(self, learning_rate: float) -> float:
        """Clip and step; returns the global gradient norm."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        gradients = [p.grad for p in self._named.values() if p.grad is not None]
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        if norm is None:  # DeepSpeed clips in float32 without ZeRO but does not return the norm
            norm = nn.utils.get_total_norm(gradients)
        return float(norm)

    def trained_weights(self) -> dict[str, Tensor]:
        """The adapter's float32 weights by parameter name."""
        return {name: self._read(name, None) for name in self._named}

    def optimiser_state(self) -> dict[str, Tensor]:
        """Float32 weights and AdamW's moments."""
        state = self.trained_weights()
        for name in self._named:
            state |= {f"{name}/{moment}": self._read(name, moment) for moment in MOMENTS}
        return state | {STEPS: step_count(_inner_optimiser(self._optimiser))}

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` returned."""
        if self._masters is None:
            self._load_partitioned(state)
            return
        inner = _inner_optimiser(self._optimiser)
        for name, parameter in self._named.items():
            master = self._masters[name]
            master.data.copy_(state[name])
            parameter.data.copy_(state[name])
            moments = {moment: state[f"{name}/{moment}"].to(master) for moment in MOMENTS}
            inner.state[master] = {"step": state[STEPS].clone(), **moments}

    def _load_partitioned(self, state: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._allocate_moments(state[STEPS])
        for name, parameter in self._named.items():
            safe_set_full_fp32_param(parameter, state[name].to(self.device))
            for moment in MOMENTS:
                value = state[f"{name}/{moment}"].to(self.device)
                safe_set_full_optimizer_state(parameter, value, moment)
        self._load_low_precision(state)

    def _load_low_precision(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights that the forward pass reads, which DeepSpeed updates only in a step."""
        deepspeed = _import_deepspeed()
        parameters = list(self._named.values())
        partitioned = self._engine.zero_optimization_stage() == 3
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=partitioned):
            if not partitioned or dist.get_rank() == 0:
                for name, parameter in self._named.items():
                    parameter.data.copy_(state[name])

    def _allocate_moments(self, steps: Tensor) -> None:
        """Allocate the moments of every partition, which DeepSpeed does at the first step."""
        inner = _inner_optimiser(self._optimiser)
        partitions = getattr(self._optimiser, "fp32_partitioned_groups_flat", None)  # stage 3
        if partitions is None:
            partitions = [p for group in inner.param_groups for p in group["params"]]
        for partition in partitions:
            zeros = {moment: torch.zeros_like(partition.data) for moment in MOMENTS}
            inner.state[partition] = {"step": steps.clone(), **zeros}
        link = getattr(self._optimiser, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    def _read(self, name: str, moment: str | None) -> Tensor:
        """A float32 weight, or one of its moments, unpartitioned and on the CPU."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._masters is not None:
            master = self._masters[name]
            state = _inner_optimiser(self._optimiser).state
            return _cpu_copy(master if moment is None else state[master][moment])
        parameter = self._named[name]
        if moment is None:
            return _cpu_copy(safe_get_full_fp32_param(parameter))
        return _cpu_copy(safe_get_full_optimizer_state(parameter, moment))


def _unpartitioned_masters(named: Mapping[str, nn.Parameter], optimiser: Any) -> dict[str, Tensor]:
    """Weights that ZeRO stage 0 steps: float32 copies in bfloat16 runs, else the parameters."""
    copies = {
        id(low): high
        for lows, highs in zip(
            getattr(optimiser, "fp16_groups", []),
            getattr(optimiser, "fp32_groups", []),
            strict=True,
        )
        for low, high in zip(lows, highs, strict=True)
    }
    return {name: copies.get(id(parameter), parameter) for name, parameter in named.items()}


def _init_single_process() -> None:
    """Initialise torch.distributed in a process of its own; launchers of several have done it.

    DeepSpeed would look for MPI otherwise.
    """
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        os.environ.setdefault("LOCAL_RANK", "0")  # required by DeepSpeed


def _import_deepspeed() -> Any:
    set_deepspeed_accelerator()
    # DeepSpeed builds a small extension with ninja, which lives beside this interpreter.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


def _deepspeed_config(zero_stage: int, config: StepConfig) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_clipping": config.optimiser.max_grad_norm,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "zero_optimization": {"stage": zero_stage},
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.optimiser.learning_rate,
                "weight_decay": config.optimiser.weight_decay,
                "torch_adam": zero_stage == 0 or not torch.cuda.is_available(),
            },
        },
        "steps_per_print": 10**9,
    }


def _inner_optimiser(optimiser: Any) -> torch.optim.Optimizer:
    inner: torch.optim.Optimizer = getattr(optimiser, "optimizer", optimiser)
    return inner


def _cpu_copy(value: Tensor) -> Tensor:
    return value.detach().float().cpu().clone()


@contextlib.contextmanager
def _silence_stdout() -> Iterator[None]:
    """Discard stdout: DeepSpeed prints its configuration there; errors go to stderr."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield

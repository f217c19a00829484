"""The DeepSpeed engine, with ZeRO stage 0, 2 or 3. The only module that imports deepspeed."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    PROJECTOR,
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
        self._stage = zero_stage
        self._named = trainable_parameters(policy)

    def logps(self, packed: PackedResponses) -> Tensor:
        """Summed response log-probs [b, m]."""
        sums: Tensor = self._engine(packed, **self._common_work(packed))
        return sums

    def _common_work(self, packed: PackedResponses) -> dict[str, int]:
        """How often each part of the model runs, where that has to be the same on every rank.

        Stage 3 gathers a module's weights each time that it runs, and ranks with fewer tokens would
        run some modules less often: their collectives would meet those of other modules.
        """
        if self._stage != 3 or dist.get_world_size() == 1:
            return {}
        own = [self.policy.num_recomputed_layers(packed), self.policy.num_head_chunks(packed)]
        most = torch.tensor(own, device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        layers, chunks = most.tolist()
        return {"recomputed_layers": layers, "head_chunks": chunks}

    def backward(self, logps: Tensor, gradient: Tensor, is_last: bool) -> None:
        """Accumulate the gradients of one micro-batch."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        # A scalar whose gradient for the log-probs is the given one.
        self._engine.backward((logps * gradient).sum(), scale_wrt_gas=False)

    def step(self, learning_rate: float, projector_rests: bool = False) -> float:
        """Clip and step; returns the norm before clipping."""
        kept = self._projector_state() if projector_rests else {}
        norm = self._step(learning_rate)
        self._restore(kept)
        return norm

    def _step(self, learning_rate: float) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        if self._stage == 0:
            # DeepSpeed clips without ZeRO, but neither returns the norm nor looks at it.
            gradients = [p.grad for p in self._named.values() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            if math.isfinite(norm):
                self._engine.step()
            return norm
        self._engine.step()
        if not self._engine.was_step_applied():
            return math.inf
        return float(self._engine.get_global_grad_norm())

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
        if self._stage != 0:
            self._load_partitioned(state)
            return
        for name, parameter in self._named.items():
            parameter.data.copy_(state[name])
            moments = {moment: state[f"{name}/{moment}"].to(parameter) for moment in MOMENTS}
            self._optimiser.state[parameter] = {"step": state[STEPS].clone(), **moments}

    def _projector_state(self) -> dict[str, Tensor]:
        """The projector's weights and moments, as `optimiser_state` has them."""
        state = {}
        for name in self._named:
            if name.startswith(PROJECTOR):
                state[name] = self._read(name, None)
                for moment in MOMENTS:
                    # There are no moments before the first step.
                    has_moments = bool(_inner_optimiser(self._optimiser).state)
                    state[f"{name}/{moment}"] = (
                        self._read(name, moment) if has_moments else torch.zeros_like(state[name])
                    )
        return state

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `_projector_state` returned."""
        names = [name for name in state if "/" not in name]
        if names and self._stage != 0:
            self._load_full(names, state)
            self._load_forward_weights(names, state)
            return
        for name in names:
            parameter = self._named[name]
            parameter.data.copy_(state[name])
            for moment in MOMENTS:
                self._optimiser.state[parameter][moment].copy_(state[f"{name}/{moment}"])

    def _load_partitioned(self, state: Mapping[str, Tensor]) -> None:
        self._allocate_moments(state[STEPS])
        self._load_full(list(self._named), state)
        self._load_forward_weights(list(self._named), state)

    def _load_full(self, names: Sequence[str], state: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for name in names:
            parameter = self._named[name]
            safe_set_full_fp32_param(parameter, state[name].to(self.device))
            for moment in MOMENTS:
                value = state[f"{name}/{moment}"].to(self.device)
                safe_set_full_optimizer_state(parameter, value, moment)

    def _load_forward_weights(self, names: Sequence[str], state: Mapping[str, Tensor]) -> None:
        """Load the weights that the forward pass reads, which DeepSpeed updates only in a step."""
        deepspeed = _import_deepspeed()
        parameters = [self._named[name] for name in names]
        partitioned = self._stage == 3
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=partitioned):
            if not partitioned or dist.get_rank() == 0:
                for name, parameter in zip(names, parameters, strict=True):
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

        parameter = self._named[name]
        if self._stage == 0:
            state = self._optimiser.state
            return _cpu_copy(parameter if moment is None else state[parameter][moment])
        if moment is None:
            return _cpu_copy(safe_get_full_fp32_param(parameter))
        return _cpu_copy(safe_get_full_optimizer_state(parameter, moment))


@contextlib.contextmanager
def partitioned_loading(dtype: str) -> Iterator[None]:
    """Models that transformers loads in the block are partitioned over the ranks (ZeRO stage 3).

    Each layer is partitioned as soon as it is made, so that no rank ever holds the whole model.

    Args:
        dtype: precision of the model, `float32` or `bfloat16`.
    """
    _import_deepspeed()
    _init_single_process()
    from transformers.integrations import HfDeepSpeedConfig

    with _silence_stdout():
        kept_while_loading = HfDeepSpeedConfig(
            {
                "train_micro_batch_size_per_gpu": 1,
                "bf16": {"enabled": dtype == "bfloat16"},
                "zero_optimization": {"stage": 3},
            }
        )
        yield
        del kept_while_loading


def gathered_parameters(
    parameters: list[nn.Parameter],
) -> contextlib.AbstractContextManager[None]:
    """Context in which this rank holds whole parameters, to be read alone."""
    found: contextlib.AbstractContextManager[None] = _import_deepspeed().zero.GatheredParameters(
        parameters
    )
    return found


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
        # The caller marks the last of a step's micro-batches, whose number may change with the
        # number of workers. The adapter is in float32 and the base model keeps its precision.
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimiser.max_grad_norm,
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

"""Which precision `policy.dtype=auto` means on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import torch

if TYPE_CHECKING:
    from raypo.config import EvaluateConfig, PolicyConfig
    from raypo.config.training import AlignConfig, SftConfig

_Config = TypeVar("_Config", bound="SftConfig | AlignConfig | EvaluateConfig")


def with_dtype(config: _Config, on_gpu: bool) -> _Config:
    """The configuration of a stage with `policy.dtype` chosen, so that all processes have the same.

    The machine that starts the stage chooses: its run folder then names the precision, and every
    worker, cached result and resumed run goes by that name.

    Args:
        config: of a stage with a language model.
        on_gpu: whether the model runs on GPUs.
    """
    policy = config.policy.model_copy(update={"dtype": dtype_name(config.policy, on_gpu)})
    return cast("_Config", config.model_copy(update={"policy": policy}))


def dtype_name(policy: PolicyConfig, on_gpu: bool) -> str:
    """`policy.dtype`, or what `auto` means: bfloat16 where the hardware multiplies it.

    A CPU without instructions for it (AVX2 alone, say) emulates each product, a hundred times
    slower than float32.

    Args:
        policy: settings of the language model.
        on_gpu: whether the model runs on GPUs.
    """
    if policy.dtype != "auto":
        return policy.dtype
    return "bfloat16" if on_gpu or _cpu_multiplies_bfloat16() else "float32"


def torch_dtype(policy: PolicyConfig) -> torch.dtype:
    """The precision of a model that this process loads."""
    dtype: torch.dtype = getattr(torch, dtype_name(policy, torch.cuda.is_available()))
    return dtype


def _cpu_multiplies_bfloat16() -> bool:
    # oneDNN's own answer, by which torch decides whether to hand it products in bfloat16.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

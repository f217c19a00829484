"""LoRA's linear layers in fewer and cheaper operations, for training on CPUs.

PEFT computes y = x W^T + s B(A x) with the adapter in float32: each layer converts x to float32,
multiplies thin matrices at float32's speed, and keeps what autograd needs of every operation. Here
one autograd function computes a layer: thin products in the base model's precision, added into the
wide ones in place. The adapter's weights and gradients stay float32; a gradient is a sum over the
micro-batch's tokens that the hardware accumulates in float32 and rounds once.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

# Whether layers that were replaced are computed as one operation; benchmarks switch it off.
ENABLED = True


def use_fused_lora(model: nn.Module) -> int:
    """Replace the forward of a PEFT model's LoRA layers; returns how many were replaced.

    Not for weights that are partitioned over ranks (ZeRO stage 3): these are gathered around the
    forward of the modules that own them, which is not called.

    May be called again after further adapters are loaded. A layer keeps PEFT's own where it is not
    a plain linear with one adapter, and in calls with dropout, with another adapter or with none.
    Nothing else about the model changes: adapters are saved, merged and switched as before.
    """
    from peft.tuners.lora.layer import Linear

    replaced = 0
    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        if type(layer.get_base_layer()) is nn.Linear and not hasattr(layer, "_peft_forward"):
            layer._peft_forward = layer.forward
            layer.forward = types.MethodType(_forward, layer)
            replaced += 1
    return replaced


def _forward(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """A LoRA layer's forward."""
    if arguments or options or not _is_plain(self):
        result: Tensor = self._peft_forward(x, *arguments, **options)
        return result
    name = self.active_adapters[0]
    base = self.get_base_layer()
    fused: Tensor = _FusedLora.apply(  # type: ignore[no-untyped-call]
        x,
        base.weight,
        base.bias,
        self.lora_A[name].weight,
        self.lora_B[name].weight,
        self.scaling[name],
    )
    return fused


def _is_plain(layer: Any) -> bool:
    """Whether a call is y = x W^T + b + s B(A x) and nothing else."""
    is_active = ENABLED and not layer.disable_adapters and not layer.merged
    if not is_active or len(layer.active_adapters) != 1:
        return False
    name = layer.active_adapters[0]
    if name not in layer.lora_A or layer.use_dora.get(name, False) or name in layer.lora_variant:
        return False
    dropout = layer.lora_dropout[name]
    has_dropout = layer.training and getattr(dropout, "p", 0.0) > 0
    return not has_dropout and layer.lora_B[name].bias is None


class _FusedLora(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T for x [..., i], W [o, i], A [r, i], B [o, r]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        down_low, up_low = down.to(x.dtype), (up * scale).to(x.dtype)
        inner = rows @ down_low.T
        out = nn.functional.linear(rows, weight, bias)
        out.addmm_(inner, up_low.T)
        ctx.save_for_backward(rows, weight, inner, down_low, up_low)
        ctx.shape, ctx.scale, ctx.dtype = x.shape, scale, down.dtype
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, inner, down_low, up_low = ctx.saved_tensors
        given = gradients[0].reshape(-1, weight.shape[0])
        inner_gradient = given @ up_low
        down_gradient = (inner_gradient.T @ rows).to(ctx.dtype)
        up_gradient = (given.T @ inner).to(ctx.dtype) * ctx.scale
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = given @ weight
            x_gradient.addmm_(inner_gradient, down_low)
            x_gradient = x_gradient.view(ctx.shape)
        return x_gradient, None, None, down_gradient, up_gradient, None

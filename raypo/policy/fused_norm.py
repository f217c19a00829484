"""Root-mean-square normalisation in fewer passes over memory, for training on CPUs.

transformers computes it with eight operations over tensors in float32, which autograd keeps and
reverses one by one. Here it is one autograd function, with sums in float32 and everything that is
as large as the hidden states in the model's own precision.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

# Whether modules that were replaced are computed as one operation; benchmarks switch it off.
ENABLED = True
_TOLERANCE = 1e-5


def use_fused_norms(model: nn.Module) -> int:
    """Replace the forward of a model's RMS norms; returns how many were replaced.

    A norm is recognised by its name and by trying: one that gives other values than w x / rms(x) in
    float32 keeps its own code, as does one whose weight is trained.
    """
    replaced = 0
    norms: list[Any] = [
        module for module in model.modules() if type(module).__name__.endswith("RMSNorm")
    ]
    for norm in norms:
        if _is_plain(norm):
            norm._own_forward = norm.forward
            norm.forward = types.MethodType(_forward, norm)
            replaced += 1
    return replaced


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    """A norm's forward."""
    if not ENABLED:
        own: Tensor = self._own_forward(hidden_states)
        return own
    fused: Tensor = _FusedNorm.apply(  # type: ignore[no-untyped-call]
        hidden_states, self.weight, self.variance_epsilon
    )
    return fused


@torch.no_grad()
def _is_plain(norm: Any) -> bool:
    weight = getattr(norm, "weight", None)
    if weight is None or weight.requires_grad or not hasattr(norm, "variance_epsilon"):
        return False
    if weight.device.type != "cpu" or not weight.numel():
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, weight.shape[0], generator=generator) * 3
    before, norm.weight.data = weight.data, weight.data.float()
    try:
        expected = norm(x)
        fused = _FusedNorm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    finally:
        norm.weight.data = before
    return bool(torch.allclose(fused, expected, atol=_TOLERANCE, rtol=_TOLERANCE))


class _FusedNorm(torch.autograd.Function):
    """w x / sqrt(mean(x ** 2) + epsilon) for x [..., d]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
        inverse = (length.square() / x.shape[-1] + epsilon).rsqrt_()
        is_copy = x.dtype != precise
        normed = x.to(precise).mul_(inverse).to(x.dtype) if is_copy else x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, weight = ctx.saved_tensors
        inner = gradients[0] * weight
        along = (inner * normed).sum(dim=-1, keepdim=True, dtype=inverse.dtype) / normed.shape[-1]
        inner = inner.addcmul_(normed, along.to(normed.dtype), value=-1)
        return inner.mul_(inverse.to(inner.dtype)), None, None

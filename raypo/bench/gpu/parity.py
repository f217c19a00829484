"""Parity: every kernel and precision against plain rows in float32, values and gradients."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from raypo.bench.gpu.policies import (
    PADDING,
    RandomPolicy,
    compiled_layers,
    make_policy,
    triton_head,
)
from raypo.bench.plain_layers import plain_layers
from raypo.bench.policy import naive_logps, repeated_rows
from raypo.policy.attention_masks import Kernel
from raypo.policy.logps import PackedPolicy

_USERS, _NEGATIVES = 4, 7
Values = tuple[Tensor, Tensor | None]


def parity_rows(name: str, device: torch.device, seed: int) -> list[dict[str, Any]]:
    """Largest differences from plain rows in float32, relative to the largest value.

    Args:
        name: key of `MODEL_CONFIGS`.
        device: where; FlexAttention has no backward on a CPU, so that its gradients are not
            compared there.
        seed: of weights and users.
    """
    exact = make_policy(name, device, _USERS, _NEGATIVES, seed, torch.float32, False)
    plain = _plain(exact)
    rows = [
        _row("blocks, float32", plain, _packed(exact, "blocks")),
        _row("flex, float32", plain, _packed(exact, "flex")),
        _row("fused LoRA, float32", plain, _packed(exact, "blocks", is_plain=False)),
    ]
    if device.type == "cuda":
        rows.append(_triton("LM head by Triton, float32", plain, exact))
    rounded = make_policy(name, device, _USERS, _NEGATIVES, seed, torch.bfloat16, False)
    rows += [
        _row("plain rows, bfloat16", plain, _plain(rounded)),
        _row("blocks, bfloat16", plain, _packed(rounded, "blocks")),
        _row("flex, bfloat16", plain, _packed(rounded, "flex")),
        _row("fused LoRA, bfloat16", plain, _packed(rounded, None, is_plain=False)),
    ]
    if device.type == "cuda":
        rows.append(_triton("LM head by Triton, bfloat16", plain, rounded))
    return rows


def _triton(name: str, plain: Values, policy: RandomPolicy) -> dict[str, Any]:
    with triton_head(policy.model):
        return _row(name, plain, _packed(policy, None, is_plain=False))


def compiled_rows(name: str, device: torch.device, seed: int) -> list[dict[str, Any]]:
    """The same of compiled decoder layers; the arguments are those of `parity_rows`."""
    exact = make_policy(name, device, _USERS, _NEGATIVES, seed, torch.float32, False)
    plain = _plain(exact)
    with compiled_layers(exact.model):
        compiled = _packed(exact, None, is_plain=False)
    return [_row("compiled layers, float32", plain, compiled)]


def _plain(policy: RandomPolicy) -> Values:
    drawn = policy.users.first(_USERS, _NEGATIVES)
    rows = repeated_rows(drawn, PADDING, policy.device)
    with plain_layers():
        return _values(policy, naive_logps(policy.model, *rows))


def _packed(policy: RandomPolicy, kernel: Kernel | None, is_plain: bool = True) -> Values:
    packed = policy.pack(_USERS, _NEGATIVES)
    own = PackedPolicy(policy.model, attention=kernel)
    with plain_layers(is_plain):
        if kernel == "flex" and policy.device.type == "cpu":
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="flex_attention called without")
                return own(packed).flatten(), None
        return _values(policy, own(packed).flatten())


def _values(policy: RandomPolicy, logps: Tensor) -> Values:
    """Log-probs, and the gradient of a weighted sum for the adapter, as one vector."""
    weights = torch.linspace(-1, 1, len(logps), device=logps.device)
    trained = [one for one in policy.model.parameters() if one.requires_grad]
    gradients = torch.autograd.grad((logps * weights).sum(), trained)
    return logps.detach(), torch.cat([one.flatten().float() for one in gradients])


def _row(name: str, plain: Values, other: Values) -> dict[str, Any]:
    logps = _difference(plain[0], other[0])
    if plain[1] is None or other[1] is None:
        return {"compared": name, "logps": logps, "gradients": None}
    return {"compared": name, "logps": logps, "gradients": _difference(plain[1], other[1])}


def _difference(plain: Tensor, other: Tensor) -> float:
    """Relative error by the Euclidean norm."""
    return float((other.float() - plain.float()).norm() / plain.float().norm())

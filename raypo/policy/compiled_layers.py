"""Decoder layers compiled by torch, for rows of any length."""

from __future__ import annotations

from typing import Any

from torch import nn

from raypo.policy.packed import decoder_layers


def compile_layers(model: nn.Module, **options: Any) -> None:
    """Compile each layer at its first call; layers that are recomputed stay so.

    Args:
        model: a decoder, plain or PEFT-wrapped.
        options: of `torch.compile`.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True, **options)

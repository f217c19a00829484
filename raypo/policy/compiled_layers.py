"""Decoder layers compiled by torch, for rows of any length."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def decoder_layers(model: nn.Module) -> list[Any]:
    """The layers of a decoder, plain or PEFT-wrapped."""
    return [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]


def compile_layers(model: nn.Module, **options: Any) -> None:
    """Compile each layer at its first call; layers that are recomputed stay so.

    Args:
        model: a decoder, plain or PEFT-wrapped.
        options: of `torch.compile`.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True, **options)

"""Activation checkpointing: decoder layers whose activations are recomputed in backward.

Every layer keeps activations of each token, and every further response adds tokens. Recomputing
the layers in proportion to those tokens keeps a step's memory near that of a single response. Each
recomputed layer costs one more forward pass: a tenth of the layers takes a thirtieth more time.

What a recomputed layer keeps is its input. With long prompts these inputs fill a GPU too.
Offloaded, they wait in the host's memory until backward asks for them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.checkpoint import checkpoint

from raypo.policy.packed import decoder_layers, decoder_of
from raypo.policy.packing import PackedResponses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Recompute = bool | Literal["auto"]
# Activations that layers keep, relative to those of the prompts with one response each. Other parts
# of a step's memory grow too (logits, their gradient); the target for the sum is 1.3.
_KEPT = 1.15


class ActivationCheckpointing:
    """Sets, for each forward pass, how many of a decoder's layers are recomputed in backward."""

    def __init__(
        self, causal_lm: PreTrainedModel, recompute: Recompute, offload: bool = False
    ) -> None:
        """Find the decoder's layers.

        Args:
            causal_lm: transformers decoder.
            recompute: all layers, none, or `auto`, as many as the additional responses need, and
                none in a decoder that does not support it.
            offload: keep the inputs of recomputed layers in the host's memory.

        Raises:
            ValueError: all layers of a decoder that does not support it.
        """
        self._recompute = recompute
        if recompute == "auto" and not causal_lm.supports_gradient_checkpointing:
            recompute = False
        if recompute:
            causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
        self._layers = decoder_layers(decoder_of(causal_lm)) if recompute else []
        if offload:
            for layer in self._layers:
                layer._gradient_checkpointing_func = offloading_checkpoint
        self._set(0)

    @contextlib.contextmanager
    def enabled_for(self, packed: PackedResponses, layers: int | None = None) -> Iterator[None]:
        """Enable it for this batch, in the first layers, which backward reaches last.

        Args:
            packed: the batch.
            layers: how many, where other ranks recompute as many; None is `num_layers(packed)`.
        """
        self._set(self.num_layers(packed) if layers is None else layers)
        try:
            yield
        finally:
            self._set(0)

    def num_layers(self, packed: PackedResponses, num_tokens: int | None = None) -> int:
        """Layers that are recomputed for this batch.

        Args:
            packed: the batch.
            num_tokens: tokens that layers compute; None is those of the packed rows.
        """
        layers = len(self._layers)
        if self._recompute != "auto":
            return layers
        return num_recomputed_layers(layers, packed, num_tokens)

    def _set(self, count: int) -> None:
        for index, layer in enumerate(self._layers):
            layer.gradient_checkpointing = index < count


def offloading_checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a layer that is recomputed in backward; its inputs wait in the host's memory."""
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(function, *arguments, use_reentrant=False)


def num_recomputed_layers(
    num_layers: int, packed: PackedResponses, num_tokens: int | None = None
) -> int:
    """Number of layers to recompute so that the others keep little more than SFT would.

    Args:
        num_layers: layers of the decoder.
        packed: the batch.
        num_tokens: tokens that layers compute; None is those of the packed rows.
    """
    share = 1 - _KEPT * packed.num_first_tokens / (num_tokens or packed.num_tokens)
    return max(0, math.ceil(num_layers * share))

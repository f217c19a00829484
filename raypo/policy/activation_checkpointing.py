"""Which layers keep what backward needs of them, and which compute it again.

A response more is a few tokens more, and every layer keeps something of each token. Computing as
many layers again as there are tokens too many keeps a step's memory near that of one response; of
each layer that costs one more forward pass, so that a tenth of the layers are a thirtieth of the
time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

from transformers.modeling_layers import GradientCheckpointingLayer

from raypo.policy.packing import PackedResponses

Recompute = bool | Literal["auto"]
# What layers keep, relative to what they keep of the prompts with one response each. The rest of a
# step's memory grows too (the head's places, its gradient), and the sum is to stay under 1.3.
_KEPT = 1.15


class Recomputation:
    """Sets, for each pass, how many of a decoder's layers are computed again in backward."""

    def __init__(self, causal_lm: Any, recompute: Recompute) -> None:
        """Take hold of the layers.

        Args:
            causal_lm: transformers decoder.
            recompute: all layers, none, or as many as the extra responses need.
        """
        self._recompute = recompute
        if recompute:
            causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
        modules = causal_lm.get_decoder().modules() if recompute else ()
        self._layers = [one for one in modules if isinstance(one, GradientCheckpointingLayer)]
        self._set(0)

    @contextlib.contextmanager
    def of(self, packed: PackedResponses) -> Iterator[None]:
        """Choose the layers for this batch: the first ones, which backward reaches last."""
        layers = len(self._layers)
        self._set(layers_again(layers, packed) if self._recompute == "auto" else layers)
        try:
            yield
        finally:
            self._set(0)

    def _set(self, count: int) -> None:
        for index, layer in enumerate(self._layers):
            layer.gradient_checkpointing = index < count


def layers_again(layers: int, packed: PackedResponses) -> int:
    """How many of `layers` are computed again, so that the others keep little more than SFT would.

    Args:
        layers: of the decoder.
        packed: the batch.
    """
    share = 1 - _KEPT * packed.num_first_tokens / packed.num_tokens
    return max(0, math.ceil(layers * share))

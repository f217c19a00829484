"""Layers as PEFT and SDPA compute them, for comparison with those that are faster on CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raypo.policy import dense_attention, fused_lora, fused_norm


@contextlib.contextmanager
def plain_layers(is_plain: bool = True) -> Iterator[None]:
    """LoRA layers by PEFT, norms by transformers and attention by SDPA in the block."""
    before = fused_lora.ENABLED, fused_norm.ENABLED, dense_attention.MOST_TOKENS
    if is_plain:
        fused_lora.ENABLED, fused_norm.ENABLED, dense_attention.MOST_TOKENS = False, False, 0
    try:
        yield
    finally:
        fused_lora.ENABLED, fused_norm.ENABLED, dense_attention.MOST_TOKENS = before

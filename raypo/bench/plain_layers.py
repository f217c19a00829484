"""Layers as PEFT and SDPA compute them, for comparison with those that are faster on CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raypo.policy import dense_attention, fused_lora


@contextlib.contextmanager
def plain_layers(is_plain: bool = True) -> Iterator[None]:
    """LoRA layers by PEFT and attention by SDPA for the length of the block."""
    before = fused_lora.ENABLED, dense_attention.MOST_TOKENS
    if is_plain:
        fused_lora.ENABLED, dense_attention.MOST_TOKENS = False, 0
    try:
        yield
    finally:
        fused_lora.ENABLED, dense_attention.MOST_TOKENS = before

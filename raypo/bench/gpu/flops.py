"""Floating-point operations of a training step, counted from shapes, and what devices can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raypo.bench.measure import measure_in_turn
from raypo.policy.logps import causal_lm_of
from raypo.policy.packed import decoder_of
from raypo.policy.packing import PackedResponses

# Dense bfloat16 FLOP/s of the makers' data sheets, by a part of the device's name.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one forward and backward pass through a frozen decoder with LoRA.

    A multiply-add counts as two. Recomputation is not counted: it is not the model's work.

    Attributes:
        layers: base weights of the decoder's linear layers: once forward, once for the gradient of
            their inputs.
        lora: the adapter's, once forward and twice backward.
        attention: products of queries with keys and of weights with values, over the pairs that
            see each other; twice as many backward.
        head: the LM head at predicting positions, as `layers`.
    """

    layers: float
    lora: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.layers + self.lora + self.attention + self.head


def step_flops(model: Any, packed: PackedResponses) -> StepFlops:
    """FLOPs of a step on packed rows, in which every distinct token is computed once.

    Args:
        model: decoder with a LoRA adapter.
        packed: the batch.
    """
    causal_lm = causal_lm_of(model)
    layers = lora = 0
    for name, module in decoder_of(causal_lm).named_modules():
        if isinstance(module, nn.Linear):
            if "lora_" in name:
                lora += module.weight.numel()
            else:
                layers += module.weight.numel()
    config = causal_lm.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pair = 4 * width * config.num_attention_heads * config.num_hidden_layers  # two products
    head = causal_lm.get_output_embeddings().weight.numel()
    tokens, sources = packed.num_tokens, len(packed.sources)
    return StepFlops(
        layers=4.0 * layers * tokens,
        lora=6.0 * lora * tokens,
        attention=3.0 * pair * visible_pairs(packed),
        head=4.0 * head * sources,
    )


def visible_pairs(packed: PackedResponses) -> int:
    """Pairs of a query and a key that it sees, itself included.

    A token sees as many as its position says: the prompt and its ancestors in the tree.
    """
    pairs = 0
    for block in packed.blocks:
        positions = packed.positions[block.row, block.start : block.end]
        pairs += int(positions.sum()) + block.length
    return pairs


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s of the device by its maker's data sheet; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def measured_flops(device: torch.device, size: int, repeats: int = 10) -> float:
    """FLOP/s that a bfloat16 product of two square matrices reaches.

    Args:
        device: where.
        size: rows and columns.
        repeats: products; the fastest counts.
    """
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    measured = measure_in_turn({"product": lambda: a @ b}, device, repeats)["product"]
    return 2 * size**3 / measured.best

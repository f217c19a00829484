"""Decoders of well-known sizes with weights drawn by lot: what a step costs needs no real ones."""

from __future__ import annotations

from typing import Any

import torch

# Llama 2 7B (arXiv 2307.09288), and the sizes of Llama 3.2 1B; the vocabulary is the tokenizer's.
SHAPES: dict[str, dict[str, int]] = {
    "random-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "random-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
# Whose tokenizer, and with it whose prompts, a shape is measured on.
TOKENIZER_OF_SHAPES = "smollm2-135m-instruct"


def random_model(shape: str, vocabulary: int, dtype: torch.dtype, seed: int) -> Any:
    """A Llama of this shape, made in its precision at once: float32 might not fit beside it.

    Args:
        shape: of `SHAPES`.
        vocabulary: rows of embedding and LM head.
        dtype: of all weights.
        seed: of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            config = LlamaConfig(
                **SHAPES[shape],
                vocab_size=vocabulary,
                max_position_embeddings=4096,
                attn_implementation="sdpa",
            )
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)

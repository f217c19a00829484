"""Decoders of well-known sizes with random weights, enough to measure what a step costs."""

from __future__ import annotations

from typing import Any

import torch

# Llama 2 7B (arXiv 2307.09288), and the sizes of Llama 3.2 1B; the vocabulary is the tokenizer's.
MODEL_CONFIGS: dict[str, dict[str, int]] = {
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
# The tokenizer for all of them.
TOKENIZER_MODEL = "smollm2-135m-instruct"


def random_model(name: str, vocab_size: int, dtype: torch.dtype, seed: int) -> Any:
    """A Llama with random weights, created in `dtype`: a float32 copy might not fit in memory.

    Args:
        name: key of `MODEL_CONFIGS`.
        vocab_size: rows of the embedding and the LM head.
        dtype: data type of all weights.
        seed: seed of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            config = LlamaConfig(
                **MODEL_CONFIGS[name],
                vocab_size=vocab_size,
                max_position_embeddings=4096,
                attn_implementation="sdpa",
            )
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)

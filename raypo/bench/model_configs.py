"""Decoders of well-known sizes with random weights, enough to measure what a step costs."""

from __future__ import annotations

from typing import Any

import torch

# Sizes as the models' own configurations give them: Llama 2 7B (arXiv 2307.09288), Llama 3 8B
# (arXiv 2407.21783), Llama 3.2 1B, Qwen2.5 7B (arXiv 2412.15115), Qwen3 0.6B (arXiv 2505.09388).
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    "random-llama-2-7b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "random-llama-3-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "random-qwen2.5-7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "random-qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "random-1b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    # For dry runs. Heads are as wide as FlexAttention's kernels need them.
    "random-tiny": {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
# The name that older versions had, with the vocabulary of the tokenizer below.
MODEL_CONFIGS["random-7b"] = MODEL_CONFIGS["random-llama-2-7b"]
# The tokenizer for all of them, where texts are read.
TOKENIZER_MODEL = "smollm2-135m-instruct"


def random_model(
    name: str, dtype: torch.dtype, seed: int, device: torch.device, vocab_size: int | None = None
) -> Any:
    """A decoder with random weights, created in `dtype`: a float32 copy might not fit in memory.

    Args:
        name: key of `MODEL_CONFIGS`.
        dtype: data type of all weights.
        seed: seed of the weights.
        device: where they are made.
        vocab_size: rows of the embedding and the LM head; None is the model's own.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = dict(MODEL_CONFIGS[name])
    if vocab_size is not None:
        sizes["vocab_size"] = vocab_size
    config = AutoConfig.for_model(**sizes, max_position_embeddings=4096)
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
    finally:
        torch.set_default_dtype(before)

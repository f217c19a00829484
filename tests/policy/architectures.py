"""Every causal LM of the installed transformers as a tiny random model."""

from typing import Any

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

from raypo.policy.tiny_copy import tiny_copy

MODEL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
# Settings without which a configuration of the default values does not build, or lacks the part
# that makes the architecture different.
SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default",
                                                                   "rope_theta": 1e4,
 "mrope_section": [22, 22, 20]}}},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 1, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 6, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 64, "num_experts_per_tok": 4, "n_shared_experts": 2},
    "falcon_h1": {"lm_head_multiplier": 0.3},
    "granite": {"logits_scaling": 8.0, "attention_multiplier": 0.05},
    "granite_swa": {"logits_scaling": 8.0},
    "granitemoe": {"logits_scaling": 8.0},
    "granitemoehybrid": {"layer_types": ["mamba", "mamba", "attention"] * 4,
                         "num_hidden_layers": 12, "logits_scaling": 8.0},
    "granitemoeshared": {"logits_scaling": 8.0},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "mistral": {"sliding_window": 4096},
    "mixtral": {"sliding_window": 4096},
    "nemotron": {"num_key_value_heads": 8},
    "phimoe": {"sliding_window": 2047},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 12},
    "qwen2_moe": {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 12},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 12},
    "qwen4_exp_text": {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256,
                       "indexer_budget": 64, "indexer_compress_ratio": 4},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip


def class_and_config(model_type: str, **settings: Any) -> tuple[type, Any]:
    """Class and full-sized configuration, as `AutoModelForCausalLM` chooses them."""
    config = CONFIG_MAPPING[model_type](**(settings or SETTINGS.get(model_type, {})))
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    text = config.get_text_config()
    return model_class, text if model_class.config_class is type(text) else config


def tiny_model(model_type: str, seed: int, rope_limit: int | None = None, **settings: Any) -> Any:
    """A tiny random model, whose trainable parameters are those of its first layer and later."""
    model_class, config = class_and_config(model_type, **settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        return tiny_copy(model_class, config, rope_limit)

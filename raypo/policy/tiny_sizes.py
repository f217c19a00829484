"""Sizes of tiny copies of decoders, by the names of settings in transformers' configurations."""

from __future__ import annotations

VOCABULARY = 97
# Ids below are left to special tokens.
FIRST_TOKEN = 20
# Positions that a windowed layer sees back, so that short rows are longer.
WINDOW = 4
HIDDEN, HEADS, HEAD_DIM, LENGTH = 32, 4, 8, 64

LAYER_COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks",
    "decoder_layers", "num_decoder_layers", "encoder_layers", "num_encoder_layers",
    "num_layers_per_stack",
)  # fmt: skip
# Settings that repeat kinds of layers with a period.
PERIODS = (
    "attn_layer_period", "expert_layer_period", "full_attention_interval",
    "global_attn_every_n_layers", "interleave_moe_layer_step", "decoder_sparse_step",
    "moe_layer_interval", "moe_layer_freq", "no_rope_layer_interval",
)  # fmt: skip
# Settings that list the layers of a kind.
INDEX_LISTS = ("hybrid_layer_ids", "full_attn_idxs", "attn_layer_indices")
# Greatest value of a setting by its name. Smaller values stay, but for hidden size and vocabulary.
SIZES: dict[str, int] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "embedding_size",
         "word_embed_proj_dim", "input_embedding_size", "output_embedding_size", "lru_width",
         "backbone_hidden_size", "cross_attention_hidden_size"),
        HIDDEN,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "dff", "dim_ff",
         "ffn_hidden_size", "intermediate_size_mlp", "dense_intermediate_size", "n_inner",
         "feed_forward_size", "shared_intermediate_size", "block_ffn_dim"),
        48,
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size",
         "moe_shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank", "o_lora_rank",
         "hidden_size_per_layer_input", "ple_embed_dim", "router_hidden_size", "adapter_rank",
         "gated_norm_rank", "hc_lowrank", "block_multiple_of"),
        16,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads",
         "decoder_attention_heads", "encoder_attention_heads", "num_decoder_attention_heads",
         "num_encoder_attention_heads", "swa_num_attention_heads", "index_n_heads",
         "linear_num_value_heads", "linear_num_heads"),
        HEADS,
    ),
    **dict.fromkeys(("linear_num_key_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(
        ("head_dim", "global_head_dim", "swa_head_dim", "attention_head_size", "dim_head",
         "d_head", "kv_channels", "v_head_dim", "swa_v_head_dim", "qk_nope_head_dim",
         "qk_rope_head_dim", "rotary_dim", "linear_key_head_dim", "linear_value_head_dim",
         "linear_head_dim", "mamba_d_head", "mamba_head_dim", "mamba_headdim", "d_rel",
         "mamba_d_state", "ssm_state_size", "state_size", "mamba_dt_rank", "time_step_rank",
         "mamba_chunk_size", "chunk_size", "mamba_num_heads", "mamba_n_heads", "n_mamba_heads",
         "compressor_head_dim", "laurel_rank", "number_of_experts_hash"),
        HEAD_DIM,
    ),
    **dict.fromkeys(
        ("index_head_dim", "indexer_head_dim", "qk_head_dim", "attention_head_dim"), 16
    ),
    "d_inner": 48,
    "dim_model_base": 8,
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "index_topk"),
        4,
    ),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "num_shared_experts",
         "n_shared_experts", "moe_num_shared_experts", "n_group", "n_groups", "mamba_n_groups",
         "mamba_ngroups", "num_expert_group", "index_topk_blocks", "zero_expert_num", "o_groups"),
        2,
    ),
    **dict.fromkeys(
        ("topk_group", "first_k_dense_replace", "num_dense_layers", "num_nextn_predict_layers"), 1
    ),
    **dict.fromkeys(
        ("sliding_window", "attention_window_size", "attention_chunk_size", "sliding_window_size",
         "window_size", "local_attention", "keep_window_size", "index_block_size", "block_size"),
        WINDOW,
    ),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length",
         "max_target_positions", "position_bias_max_distance"),
        LENGTH,
    ),
    "mamba_d_ssm": 64,
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size", "audio_vocab_size",
         "ngram_vocab_size_base"),
        VOCABULARY,
    ),
}  # fmt: skip
SHARED_HEADS = ("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads")
HEAD_COUNTS = ("num_attention_heads", "n_head", "n_heads")

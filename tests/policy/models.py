"""Small random decoders with LoRA, and the plain full-sequence computation to compare with.

Shapes: B = 2 users, M = 3 responses each.
"""

import peft
import torch
from transformers import (
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    # Windows shorter than the prompts, so that they cut.
    "gemma2": Gemma2Config(
        **SIZES, head_dim=8, sliding_window=4, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "mistral": MistralConfig(**SIZES, head_dim=8, sliding_window=4),
    "gpt2": GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    ),
    "opt": OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32, dropout=0.0, attention_dropout=0.0,
    ),
}  # fmt: skip
PROMPTS = [[5, 6, 7, 8, 9], [11, 12, 13]]
# Some begin like others, which packed rows compute once.
RESPONSES = [[[20, 21, 2], [20, 2], [20, 21, 25, 26, 2]], [[30, 2], [30, 31, 32, 2], [2]]]
# Weights of the log-probs in a loss, so that every response has a gradient of its own.
WEIGHTS = torch.tensor([[1.0, -0.5, 0.3], [0.7, -1.2, 0.1]])
FLOAT32_EPS = torch.finfo(torch.float32).eps


def lora_model(name: str) -> peft.PeftModel:
    """A float32 decoder of `CONFIGS` with an adapter that changes its output."""
    torch.manual_seed(0)
    # Gemma 2's caps exist in transformers' eager attention alone.
    attention = "eager" if name == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention)
    lora = peft.LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=name == "gpt2"
    )
    model = peft.get_peft_model(model, lora)
    for parameter in model.parameters():  # LoRA's B starts at zero: move it off
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def plain_logps(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Summed log-probs of a response, from the logits of the plain sequence, at least float32."""
    tokens = torch.tensor([prompt + response])
    logits = model(input_ids=tokens, use_cache=False).logits[0, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    token_logps = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    return token_logps[len(prompt) - 1 :].sum()


def plain_batch(model: torch.nn.Module) -> torch.Tensor:
    """[B, M] summed log-probs of the responses."""
    return torch.stack(
        [
            torch.stack([plain_logps(model, prompt, response) for response in responses])
            for prompt, responses in zip(PROMPTS, RESPONSES, strict=True)
        ]
    )


def lora_gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def assert_float32_logps(sums: torch.Tensor, plain: torch.Tensor) -> None:
    """Assert agreement up to a few roundings of float32, which packed log-probs are computed in."""
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, plain, atol=0, rtol=8 * FLOAT32_EPS, check_dtype=False)


def assert_float32_gradients(ours: torch.Tensor, plain: torch.Tensor) -> None:
    """Assert agreement up to roundings of float32, relative to the largest entry."""
    assert ours.dtype == plain.dtype == torch.float32
    scale = max(1.0, plain.abs().max().item())
    torch.testing.assert_close(ours, plain, atol=64 * FLOAT32_EPS * scale, rtol=0)


def assert_equals_plain(model: torch.nn.Module, sums: torch.Tensor, plain: torch.Tensor) -> None:
    """Assert that packed log-probs and their LoRA gradients are those of plain sequences."""
    assert_float32_logps(sums, plain)
    expected = lora_gradients(model, (WEIGHTS * plain).sum())
    actual = lora_gradients(model, (WEIGHTS * sums).sum())
    for ours, theirs in zip(actual, expected, strict=True):
        assert_float32_gradients(ours, theirs)

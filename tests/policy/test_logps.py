"""Packed log-probs and LoRA gradients against the plain full-sequence computation."""

import math

import peft
import pytest
import torch
from transformers import (
    BloomConfig,
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

from raypo.policy import lm_head, pack_responses, response_logps
from raypo.policy.activation_checkpointing import layers_again
from raypo.policy.logps import PackedPolicy, causal_lm_of
from raypo.policy.scoring import score_responses

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
RESPONSES = [[[20, 21, 2], [22, 2], [23, 24, 25, 26, 2]], [[30, 2], [20, 31, 32, 2], [2]]]


def lora_model(name: str) -> peft.PeftModel:
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
    tokens = torch.tensor([prompt + response])
    logits = model(input_ids=tokens).logits[0, :-1].float()
    token_logps = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    return token_logps[len(prompt) - 1 :].sum()


def lora_gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


WEIGHTS = torch.tensor([[1.0, -0.5, 0.3], [0.7, -1.2, 0.1]])


def plain_batch(model: torch.nn.Module) -> torch.Tensor:
    return torch.stack(
        [
            torch.stack([plain_logps(model, prompt, response) for response in answers])
            for prompt, answers in zip(PROMPTS, RESPONSES, strict=True)
        ]
    )


def check_equal(model: torch.nn.Module, sums: torch.Tensor, plain: torch.Tensor) -> None:
    torch.testing.assert_close(sums, plain, atol=1e-5, rtol=1e-5)
    wanted = lora_gradients(model, (WEIGHTS * plain).sum())
    got = lora_gradients(model, (WEIGHTS * sums).sum())
    for ours, theirs in zip(got, wanted, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, scale), rtol=1e-4)


@pytest.mark.parametrize("chunk", [1 << 25, 4 * 97 * 3])  # bytes of logits: all, or three places
@pytest.mark.parametrize("budget", [None, 1])  # one row for all, or a row for each
@pytest.mark.parametrize("name", CONFIGS)
def test_values_and_lora_gradients_equal_the_plain_computation(name, budget, chunk, monkeypatch):
    monkeypatch.setitem(lm_head._CHUNK_BYTES, "cpu", chunk)
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0, token_budget=budget)
    answer = response_logps(model, packed)
    assert answer.lengths.tolist() == [[3, 2, 5], [2, 4, 1]]
    check_equal(model, answer.sums, plain)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_scores_packed_rows_still_computes_plain_ones(name):
    model = lora_model(name)
    before = plain_batch(model)
    response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0))
    torch.testing.assert_close(plain_batch(model), before)


@pytest.mark.filterwarnings("ignore")  # uncompiled, FlexAttention warns that it is slow
@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_flex_attention_gives_the_same(name):
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0, token_budget=12, multiple_of=16)
    with torch.no_grad():  # FlexAttention has no backward on the CPU
        flexed = PackedPolicy(model, attention="flex")(packed)
    torch.testing.assert_close(flexed, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recompute", [True, "auto"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_layers_computed_again_change_nothing(name, recompute):
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    model.train()
    policy = PackedPolicy(model, recompute=recompute)
    check_equal(model, policy(packed), plain)


def test_as_many_layers_are_computed_again_as_there_are_tokens_too_many():
    one = pack_responses([[1] * 20], [[[2] * 6]], pad_token_id=0)
    assert layers_again(30, one) == 0
    many = pack_responses([[1] * 20], [[[2] * 6] * 16], pad_token_id=0)
    # 25 tokens with one response, 100 with all: 1.15 * 25 of 100 may keep what they have.
    assert (many.num_first_tokens, many.num_tokens) == (25, 100)
    assert layers_again(30, many) == math.ceil(30 * (1 - 1.15 * 0.25)) == 22


@pytest.mark.parametrize(("recompute", "passes"), [(False, 1), (True, 2)])
def test_layers_run_again_in_backward_of_packed_rows_alone(recompute, passes):
    model = lora_model("llama").train()
    layers = causal_lm_of(model).get_decoder().layers
    policy = PackedPolicy(model, recompute=recompute)
    runs = []
    for layer in layers:
        layer.self_attn.register_forward_hook(lambda *_: runs.append(1))
    policy(pack_responses(PROMPTS, RESPONSES, pad_token_id=0)).sum().backward()
    assert len(runs) == passes * len(layers)
    runs.clear()
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert len(runs) == len(layers)


def test_a_decoder_with_attention_of_its_own_is_refused():
    config = BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=4)
    with pytest.raises(ValueError, match="BloomForCausalLM computes attention in code of its own"):
        PackedPolicy(AutoModelForCausalLM.from_config(config))


def test_float64_agreement_is_at_rounding_level():
    model = lora_model("llama").double()
    packed = response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0)).sums
    plain = plain_logps(model, PROMPTS[0], RESPONSES[0][2])
    assert packed[0, 2].item() == pytest.approx(plain.item(), abs=1e-5)


def test_a_head_that_is_trained_gets_its_gradient(monkeypatch):
    monkeypatch.setitem(lm_head._CHUNK_BYTES, "cpu", 4 * 97 * 3)
    model = lora_model("qwen2")
    weight = model.get_output_embeddings().weight.requires_grad_()
    packed = response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0)).sums
    plain = plain_batch(model)
    ours, theirs = (
        torch.autograd.grad((WEIGHTS * sums).sum(), weight)[0] for sums in (packed, plain)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_response_does_not_see_the_others():
    model = lora_model("llama")
    alone = response_logps(model, pack_responses([PROMPTS[0]], [[RESPONSES[0][1]]], 0)).sums
    together = response_logps(model, pack_responses(PROMPTS, RESPONSES, 0)).sums
    torch.testing.assert_close(together[0, 1], alone[0, 0])


def test_scoring_in_any_batch_size_keeps_users_in_order():
    model = lora_model("llama")
    one = score_responses(model, PROMPTS, RESPONSES, pad_token_id=0, batch_size=1)
    both = score_responses(model, PROMPTS, RESPONSES, pad_token_id=0, batch_size=2)
    torch.testing.assert_close(one, both)
    expected = plain_logps(model, PROMPTS[1], RESPONSES[1][1])
    torch.testing.assert_close(one[1, 1], expected.detach(), atol=1e-4, rtol=1e-4)
    assert not one.requires_grad


def test_the_last_token_of_a_response_takes_no_place():
    packed = pack_responses([[1, 2]], [[[3, 4], [5]]], pad_token_id=0)
    assert packed.tokens.tolist() == [[1, 2, 3]]
    assert packed.targets.tolist() == [3, 5, 4]
    assert packed.sources.tolist() == [1, 2]
    assert packed.source_of.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ([[]], [[[1]]], "prompt 0 is empty"),
        ([[1]], [[[1], []]], "user 0 has an empty response"),
        ([[1], [1]], [[[1]], [[1], [2]]], "same number of responses"),
        ([[1]], [], "1 prompts and 0 lists"),
    ],
)
def test_malformed_batches_are_refused(prompts, responses, message):
    with pytest.raises(ValueError, match=message):
        pack_responses(prompts, responses, pad_token_id=0)

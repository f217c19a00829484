"""How log-probs of a decoder are computed is found out by computing them."""

import logging
import re
import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raypo.policy import PackedPolicy, decoder_check, pack_responses
from raypo.policy.decoder_check import find_route
from raypo.policy.unpacked import unpacked_logps

from .architectures import SETTINGS, class_and_config, tiny_model
from .models import PROMPTS, RESPONSES, WEIGHTS, plain_batch, plain_logps

LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + index / 100 for index in range(48)],
        "long_factor": [1.0 + index for index in range(48)],
    },
    "original_max_position_embeddings": 4096,
    "max_position_embeddings": 131072,
}
DYNAMIC = {
    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    "max_position_embeddings": 2048,
}


def rope(**settings):
    return {"rope_parameters": {"rope_theta": 1e4, **settings}, "max_position_embeddings": 32768}


@pytest.mark.filterwarnings("ignore")  # from transformers' own code
@pytest.mark.parametrize(
    ("model_type", "settings", "rows"),
    [
        ("llama", {}, "packed"),
        ("llama", rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=8192), "packed"),
        ("llama", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096),
         "packed"),
        ("granite", {"logits_scaling": 8.0}, "packed"),
        ("cohere", {"logit_scale": 0.0625}, "packed"),
        ("cohere2", {}, "packed"),
        ("gemma2", {}, "packed"),
        ("gemma3_text", {}, "packed"),
        ("lfm2", SETTINGS["lfm2"], "padded"),
        ("recurrent_gemma", {}, "padded"),
        ("gpt_oss", {}, "padded"),
        ("phimoe", {"sliding_window": 2047}, "padded"),
        ("mamba", {}, "padded"),
        ("bert", {}, "refused"),
    ],
)  # fmt: skip
def test_the_fastest_right_route_is_found(model_type, settings, rows):
    route = find_route(*class_and_config(model_type, **settings))
    assert (route.rows, route.beyond) == (rows, None)
    assert bool(route.reason) == (rows != "packed")


# Those of the demo's model, of Qwen 2.5 0.5B and Llama 3.2 1B, and unusual ones.
@pytest.mark.parametrize(
    ("hidden", "heads", "shared"),
    [
        (576, 9, 3),
        (896, 14, 2),
        (2048, 32, 8),
        (512, 32, 32),
        (96, 6, 2),
        (64, 2, 2),
        (32, 2, 1),
        (48, 3, 1),
        (18, 3, 3),
        (8, 1, 1),
        (24, 6, 1),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "mistral"])
def test_any_sizes_have_a_tiny_copy(model_type, hidden, heads, shared):
    settings = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": 3,
        "vocab_size": 50,
        "eos_token_id": [4, 48, 49],
    }
    route = find_route(*class_and_config(model_type, **settings))
    assert (route.rows, route.reason) == ("packed", "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model_type", "problem"), [
    ("gpt_oss", "does not know the argument s_aux"),
    ("lfm2", "log-probs differ by .* nats from those of plain logits"),
    ("bert", "its logits depend on later tokens"),
    ("mamba", "computes attention in code of its own"),
])  # fmt: skip
def test_the_reason_is_given(model_type, problem):
    settings = SETTINGS.get(model_type, {})
    reason = find_route(*class_and_config(model_type, **settings)).reason
    assert re.search(problem, reason)


def test_frequencies_that_follow_the_longest_row_limit_packed_rows():
    longrope = find_route(*class_and_config("phi3", **LONGROPE))
    assert (longrope.rows, longrope.limit, longrope.beyond.rows) == ("packed", 4096, "by_length")
    # Dynamic NTK keeps the frequencies of earlier rows.
    dynamic = find_route(*class_and_config("llama", **DYNAMIC))
    assert (dynamic.rows, dynamic.limit, dynamic.beyond.rows) == ("packed", 2048, "refused")
    assert dynamic.beyond.reason == "its log-probs depend on the rows computed before"


@pytest.mark.parametrize("limit", [64, 9])
def test_long_rows_of_longrope_are_computed_by_length(limit):
    model = tiny_model("phi3", seed=1, rope_limit=limit, **LONGROPE)
    with torch.no_grad():
        plain = plain_batch(model)
        policy = PackedPolicy(model)
        sums = policy(pack_responses(PROMPTS, RESPONSES, pad_token_id=0))
    torch.testing.assert_close(sums, plain, atol=1e-4, rtol=0)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    assert policy._route_for(packed).rows == ("packed" if limit == 64 else "by_length")
    if limit == 9:
        with pytest.raises(ValueError, match=r"use cluster\.zero_stage=2"):
            policy(packed, recomputed_layers=0, head_chunks=1)


def test_rows_beyond_the_limit_of_dynamic_ntk_are_an_error():
    policy = PackedPolicy(tiny_model("llama", seed=1, rope_limit=9, **DYNAMIC))
    policy(pack_responses([[20, 21, 22]], [[[23, 24]]], pad_token_id=0))
    with pytest.raises(ValueError, match=r"a row has 10 tokens; beyond 9 .* depend on the rows"):
        policy(pack_responses(PROMPTS, RESPONSES, pad_token_id=0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recompute", [False, "auto", True])
@pytest.mark.parametrize("model_type", ["gpt_oss", "mamba", "lfm2", "bloom"])
def test_gradients_of_unpacked_rows_are_the_plain_ones(model_type, recompute):
    settings = SETTINGS.get(model_type, {})
    model = tiny_model(model_type, seed=1, **settings)
    weights = [p for p in model.parameters() if p.dim() == 2][1:]
    for weight in weights:
        weight.requires_grad_()
    plain = plain_batch(model)
    expected = torch.autograd.grad((WEIGHTS * plain).sum(), weights, allow_unused=True)
    policy = PackedPolicy(model.train(), recompute=recompute)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0, token_budget=20)
    sums = policy(packed, head_chunks=policy.num_head_chunks(packed) + 2)
    torch.testing.assert_close(sums, plain, atol=1e-4, rtol=0)
    actual = torch.autograd.grad((WEIGHTS * sums).sum(), weights, allow_unused=True)
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs is not None:
            scale = max(1.0, theirs.abs().max().item())
            torch.testing.assert_close(ours, theirs, atol=1e-4 * scale, rtol=0)


def test_the_check_runs_once_is_cheap_and_leaves_the_random_state(monkeypatch):
    monkeypatch.setattr(decoder_check, "_routes", {})
    config = LlamaConfig(vocab_size=500, hidden_size=64, num_hidden_layers=2, intermediate_size=96)
    model = LlamaForCausalLM(config)
    state = torch.get_rng_state()
    start = time.process_time()
    PackedPolicy(model)
    assert time.process_time() - start < 2
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(decoder_check, "find_route", None)  # would fail if it were called
    PackedPolicy(model)


@pytest.mark.filterwarnings("ignore")
def test_unpacked_rows_are_said_once(monkeypatch, caplog):
    monkeypatch.setattr(decoder_check, "_routes", {})
    with caplog.at_level(logging.WARNING, logger="raypo"):
        for seed in (1, 2):
            PackedPolicy(tiny_model("gpt_oss", seed))
    messages = [one.message for one in caplog.records if one.name == "raypo"]
    assert len(messages) == 1
    assert messages[0].startswith("gpt_oss: every response is computed with its own copy")


@pytest.mark.filterwarnings("ignore")
def test_a_refused_decoder_names_the_reason():
    with pytest.raises(ValueError, match="BertLMHeadModel cannot be used: its logits depend on"):
        PackedPolicy(tiny_model("bert", seed=1))


def test_a_decoder_of_ones_own_is_checked_too():
    class Shifted(LlamaForCausalLM):
        """Adds to a logit what its configuration does not tell."""

        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * torch.linspace(1, 2, output.logits.shape[-1])
            return output

    config = LlamaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    with pytest.raises(ValueError, match="Shifted cannot be used: packed rows: log-probs differ"):
        PackedPolicy(Shifted(config))


def test_rows_are_the_plain_sequences():
    model = tiny_model("llama", seed=1)
    with torch.no_grad():
        alone = plain_logps(model, PROMPTS[0], RESPONSES[0][2])
        packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
        for by_length in (False, True):
            sums = unpacked_logps(model, packed, by_length)
            torch.testing.assert_close(sums[0, 2], alone, atol=1e-4, rtol=0)

"""Packed log-probs and LoRA gradients against the plain full-sequence computation."""

import pytest
import torch

from raypo.policy import lm_head, pack_responses, response_logps
from raypo.policy.logps import causal_lm_of

from .models import (
    CONFIGS,
    PROMPTS,
    RESPONSES,
    assert_equals_plain,
    assert_float32_logps,
    lora_model,
    plain_batch,
)


# Bytes of logits: all at once, or those of three positions.
@pytest.mark.parametrize("chunk", [1 << 25, 4 * 97 * 3])
@pytest.mark.parametrize("budget", [None, 1])  # one row for all, or a row for each
@pytest.mark.parametrize("name", CONFIGS)
def test_float32_values_and_lora_gradients_equal_the_plain_computation(
    name, budget, chunk, monkeypatch
):
    monkeypatch.setitem(lm_head._CHUNK_BYTES, "cpu", chunk)
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0, token_budget=budget)
    result = response_logps(model, packed)
    assert result.lengths.tolist() == [[3, 2, 5], [2, 4, 1]]
    assert_equals_plain(model, result.sums, plain)


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_equal_the_plain_ones_to_float64_rounding(name):
    model = lora_model(name).double()
    decoder = causal_lm_of(model).get_decoder()
    states = []
    # transformers' eager attention takes its softmax in float32, in a model of float64 too.
    tolerance = 1e-12 if decoder.config._attn_implementation == "sdpa" else 5e-6
    decoder.register_forward_hook(lambda *call: states.append(call[-1].last_hidden_state))
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    response_logps(model, packed)
    for user, (prompt, responses) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        for index, response in enumerate(responses):
            decoder(input_ids=torch.tensor([prompt + response]))
            last = packed.response_of == user * len(responses) + index
            column = int(packed.sources[packed.source_of[last]].max())  # predicts its last token
            before = torch.arange(packed.tokens.shape[1]) <= column
            ours = states[0][0, before & (column < packed.ends[0])]
            theirs = states[-1][0, :-1]  # nothing reads the last token
            assert ours.dtype == theirs.dtype == torch.float64
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_logps_of_a_float64_model_are_rounded_to_float32_alone(name):
    model = lora_model(name).double()
    plain = plain_batch(model)
    assert plain.dtype == torch.float64
    sums = response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0)).sums
    assert_float32_logps(sums, plain)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_scores_packed_rows_still_computes_plain_ones(name):
    model = lora_model(name)
    before = plain_batch(model)
    response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0))
    torch.testing.assert_close(plain_batch(model), before)


def test_a_response_does_not_see_the_others():
    model = lora_model("llama")
    alone = response_logps(model, pack_responses([PROMPTS[0]], [[RESPONSES[0][1]]], 0)).sums
    together = response_logps(model, pack_responses(PROMPTS, RESPONSES, 0)).sums
    torch.testing.assert_close(together[0, 1], alone[0, 0])

"""Attention over packed rows: kernels, and decoders that it cannot serve."""

import pytest
import torch
from transformers import BloomConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from raypo.policy import pack_responses
from raypo.policy.logps import PackedPolicy

from .models import PROMPTS, RESPONSES, assert_float32_logps, lora_model, plain_batch


@pytest.mark.filterwarnings("ignore")  # uncompiled, FlexAttention warns that it is slow
@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_flex_attention_gives_the_same(name):
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0, token_budget=12, multiple_of=16)
    with torch.no_grad():  # FlexAttention has no backward on the CPU
        sums = PackedPolicy(model, attention="flex")(packed)
    assert_float32_logps(sums, plain)


def test_a_decoder_with_attention_of_its_own_is_refused():
    config = BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=4)
    with pytest.raises(ValueError, match="BloomForCausalLM computes attention in code of its own"):
        PackedPolicy(AutoModelForCausalLM.from_config(config))

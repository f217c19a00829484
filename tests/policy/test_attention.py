"""Attention over packed rows: kernels, and decoders that it cannot serve."""

import pytest
import torch
from torch import nn
from transformers import BloomConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from raypo.policy import pack_responses
from raypo.policy.attention import packed_attention, use_packed_attention
from raypo.policy.attention_masks import Layout
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


def test_attention_of_a_decoders_own_cannot_be_replaced():
    config = BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=4)
    with pytest.raises(ValueError, match="BloomForCausalLM computes attention in code of its own"):
        use_packed_attention(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize(
    ("argument", "problem"),
    [({"s_aux": torch.zeros(2)}, "argument s_aux"), ({"is_causal": False}, "is_causal=False")],
)
def test_packed_rows_refuse_arguments_that_may_change_attention(argument, problem):
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    heads = torch.zeros(1, 2, packed.tokens.shape[1], 4)
    layout = Layout(packed, "blocks")
    known = {"position_ids": packed.positions, "use_cache": False, "is_causal": True}
    packed_attention(nn.Module(), heads, heads, heads, None, packed_layout=layout, **known)
    with pytest.raises(ValueError, match=problem):
        packed_attention(nn.Module(), heads, heads, heads, None, packed_layout=layout, **argument)

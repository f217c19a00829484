"""Attention over packed rows: kernels, and decoders that it cannot serve."""

import pytest
import torch
from torch import nn
from transformers import BloomConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from raypo.policy import attention_masks, dense_attention, pack_responses
from raypo.policy.attention import packed_attention, use_packed_attention
from raypo.policy.attention_masks import Layout
from raypo.policy.logps import PackedPolicy

from .models import (
    PROMPTS,
    RESPONSES,
    assert_equals_plain,
    assert_float32_logps,
    lora_model,
    plain_batch,
)


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


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("most_tokens", [0, 768])  # SDPA in tiles, or products of whole matrices
def test_short_and_long_blocks_give_the_same(name, most_tokens, monkeypatch):
    monkeypatch.setattr(dense_attention, "MOST_TOKENS", most_tokens)
    model = lora_model(name)
    plain = plain_batch(model)
    sums = PackedPolicy(model)(pack_responses(PROMPTS, RESPONSES, pad_token_id=0))
    assert_equals_plain(model, sums, plain)


def test_whole_matrices_are_as_near_to_float64_in_bfloat16_as_tiles(monkeypatch):
    torch.manual_seed(0)
    prompts = torch.randint(3, 97, (2, 100)).tolist()
    packed = pack_responses(prompts, torch.randint(3, 97, (2, 3, 6)).tolist(), pad_token_id=0)
    layout = Layout(packed, "blocks")
    width = packed.tokens.shape[1]
    heads = [torch.randn(1, count, width, 16).bfloat16() for count in (4, 2, 2)]
    given = torch.randn(1, width, 4, 16).bfloat16()
    errors = {}
    exact = None
    for most_tokens, dtype in ((0, torch.float64), (0, torch.bfloat16), (768, torch.bfloat16)):
        monkeypatch.setattr(dense_attention, "MOST_TOKENS", most_tokens)
        inputs = [one.to(dtype).requires_grad_() for one in heads]
        own = Layout(packed, "blocks") if dtype == torch.float64 else layout
        out, _ = packed_attention(nn.Module(), *inputs, None, packed_layout=own)
        results = [out.detach(), *torch.autograd.grad(out, inputs, given.to(dtype))]
        if exact is None:
            exact = results
            continue
        errors[most_tokens] = [
            float((one - right).norm() / right.norm())
            for one, right in zip(results, exact, strict=True)
        ]
    for whole, tiles in zip(errors[768], errors[0], strict=True):
        assert whole < 2 * tiles and whole < 0.01


@pytest.mark.parametrize("budget", [None, 60])
def test_the_block_mask_is_the_one_that_all_pairs_give(budget, monkeypatch):
    from torch.nn.attention.flex_attention import create_block_mask

    monkeypatch.setattr(attention_masks, "FLEX_BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 9, (6, 30), generator=generator).tolist()
    prompts = [row[:n] for n, row in enumerate(tokens, 9)]
    responses = [[row[n : n + 9], row[n : n + 4] + [7] * n] for n, row in enumerate(tokens, 9)]
    packed = pack_responses(prompts, responses, 0, token_budget=budget, multiple_of=16)
    ours = Layout(packed, "flex").flex_mask(None)
    rows, width = packed.tokens.shape
    made = create_block_mask(ours.mask_mod, rows, None, width, width, device="cpu", BLOCK_SIZE=16)
    for kind in ("kv", "full_kv"):
        counts = getattr(ours, f"{kind}_num_blocks")
        assert torch.equal(counts, getattr(made, f"{kind}_num_blocks"))
        indices = [getattr(mask, f"{kind}_indices") for mask in (ours, made)]
        for place in torch.nonzero(counts).tolist():
            number = int(counts[tuple(place)])
            one, other = (set(each[tuple(place)][:number].tolist()) for each in indices)
            assert one == other
    assert int(ours.full_kv_num_blocks.sum()) > 0

"""Recomputed layers: how many there are, and that they change no number."""

import math

import pytest
import torch

from raypo.policy import pack_responses
from raypo.policy.activation_checkpointing import num_recomputed_layers
from raypo.policy.logps import PackedPolicy, causal_lm_of

from .models import PROMPTS, RESPONSES, assert_equals_plain, lora_model, plain_batch


@pytest.mark.parametrize("recompute", [True, "auto"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_recomputed_layers_change_nothing(name, recompute):
    model = lora_model(name)
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    model.train()
    policy = PackedPolicy(model, recompute=recompute)
    assert_equals_plain(model, policy(packed), plain)


@pytest.mark.parametrize(("recompute", "kept"), [(True, 2), (False, 0)])
def test_offloaded_inputs_change_nothing_and_are_those_of_recomputed_layers(
    monkeypatch, recompute, kept
):
    model = lora_model("llama")
    plain = plain_batch(model)
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    offloaded = []
    save_on_cpu = torch.autograd.graph.save_on_cpu

    def counting(*arguments, **options):
        hooks = save_on_cpu(*arguments, **options)
        pack = hooks.pack_hook
        hooks.pack_hook = lambda tensor: (offloaded.append(tensor.shape), pack(tensor))[1]
        return hooks

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", counting)
    policy = PackedPolicy(model.train(), recompute=recompute, offload=True)
    assert_equals_plain(model, policy(packed), plain)
    width = causal_lm_of(model).config.hidden_size
    assert offloaded.count((1, packed.num_tokens, width)) == kept
    assert all(shape.numel() <= packed.num_tokens * width for shape in offloaded)


def test_layers_are_recomputed_in_proportion_to_the_additional_tokens():
    one = pack_responses([[1] * 20], [[[2] * 6]], pad_token_id=0)
    assert num_recomputed_layers(30, one) == 0
    many = pack_responses([[1] * 20], [[[number] * 6 for number in range(16)]], pad_token_id=0)
    # 25 tokens with one response, 100 with all: 1.15 * 25 of 100 may keep their activations.
    assert (many.num_first_tokens, many.num_tokens) == (25, 100)
    assert num_recomputed_layers(30, many) == math.ceil(30 * (1 - 1.15 * 0.25)) == 22


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

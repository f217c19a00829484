"""LoRA layers as one operation: the values and gradients of PEFT's own."""

import copy

import peft
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from raypo.policy import pack_responses, response_logps
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.logps import PackedPolicy

from .models import PROMPTS, RESPONSES, WEIGHTS, lora_gradients, lora_model, plain_batch


def packed_sums(model, recompute=False):
    policy = PackedPolicy(model, recompute=recompute)
    return policy(pack_responses(PROMPTS, RESPONSES, pad_token_id=0))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma"])  # Qwen 2 has biases
def test_float32_values_and_gradients_equal_pefts(name, recompute) -> None:
    model = lora_model(name)
    plain = plain_batch(model)
    expected = lora_gradients(model, (WEIGHTS * plain).sum())
    assert use_fused_lora(model) == 14
    sums = packed_sums(model.train(), recompute)
    torch.testing.assert_close(sums, plain, atol=1e-5, rtol=0)
    for ours, theirs in zip(lora_gradients(model, (WEIGHTS * sums).sum()), expected, strict=True):
        assert ours.dtype == torch.float32
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, atol=1e-5 * scale, rtol=0)


def test_bfloat16_gradients_are_as_near_to_float32_as_pefts() -> None:
    """With an adapter in float32 and 300 tokens, so that sums over tokens are long."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config)
    for parameter in base.parameters():
        parameter.data = parameter.data.bfloat16().float()  # the same weights in both precisions
    prompts = torch.randint(3, 500, (2, 140)).tolist()
    packed = pack_responses(prompts, torch.randint(3, 500, (2, 2, 9)).tolist(), 0)

    def gradients(dtype, is_fused):
        torch.manual_seed(1)
        lora = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(copy.deepcopy(base).to(dtype), lora)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.05)
        if is_fused:
            use_fused_lora(model)
        sums = response_logps(model, packed).sums
        return sums.detach(), torch.cat([g.flatten() for g in lora_gradients(model, sums.sum())])

    exact, plain, fused = (
        gradients(dtype, is_fused)
        for dtype, is_fused in (
            (torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True),
        )
    )  # fmt: skip
    for index in (0, 1):
        errors = [
            (one[index] - exact[index]).norm() / exact[index].norm() for one in (plain, fused)
        ]
        # Each gradient is rounded once more: 0.6% against 0.45%.
        assert errors[1] < max(1.5 * errors[0], 1e-3) and errors[1] < 0.01


def test_without_its_adapter_a_model_is_the_base_model() -> None:
    model = lora_model("llama")
    with model.disable_adapter():
        expected = plain_batch(model)
    use_fused_lora(model)
    assert not torch.allclose(plain_batch(model), expected, atol=1e-3)
    with model.disable_adapter():
        torch.testing.assert_close(plain_batch(model), expected)


def test_the_active_adapter_counts_and_merged_ones_are_pefts() -> None:
    model = lora_model("llama")
    model.add_adapter("other", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".other." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        expected[name] = plain_batch(model).detach()
    use_fused_lora(model)
    for name in ("default", "other"):
        model.set_adapter(name)
        torch.testing.assert_close(plain_batch(model), expected[name], atol=1e-5, rtol=0)
    model.merge_adapter()
    torch.testing.assert_close(plain_batch(model), expected["other"], atol=1e-4, rtol=0)


def test_dropout_is_pefts() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    lora = peft.LoraConfig(
        r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM",
        init_lora_weights=False,
    )  # fmt: skip
    model = peft.get_peft_model(AutoModelForCausalLM.from_config(config), lora).train()
    tokens = torch.tensor([PROMPTS[0]])
    torch.manual_seed(5)
    expected = model(input_ids=tokens).logits
    use_fused_lora(model)
    torch.manual_seed(5)
    torch.testing.assert_close(model(input_ids=tokens).logits, expected)
    assert not torch.allclose(model.eval()(input_ids=tokens).logits, expected, atol=1e-3)

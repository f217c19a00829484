"""RMS norms as one operation: values and gradients of the model's own."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from raypo.policy.fused_norm import use_fused_norms

from .models import lora_model, plain_batch


def norm_of(kind=LlamaRMSNorm, dtype=torch.float32) -> nn.Module:
    torch.manual_seed(0)
    holder = nn.Module()
    holder.norm = kind(32).to(dtype)
    nn.init.normal_(holder.norm.weight, mean=1.0, std=0.2)
    return holder.requires_grad_(False)


def run(holder: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    out = holder.norm(x)
    given = torch.linspace(-1, 2, x.numel()).view_as(x).to(x.dtype)
    return [out.detach(), torch.autograd.grad(out, x, given)[0]]


def test_float32_values_and_gradients_are_the_same() -> None:
    holder, x = norm_of(), torch.randn(2, 5, 32) * 4
    expected = run(holder, x)
    assert use_fused_norms(holder) == 1
    for ours, theirs in zip(run(holder, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_as_near_to_float64() -> None:
    x = (torch.randn(40, 32) * 4).bfloat16()
    exact = run(norm_of(dtype=torch.bfloat16).double(), x.double())
    holder = norm_of(dtype=torch.bfloat16)
    plain = run(holder, x)
    use_fused_norms(holder)
    for ours, theirs, right in zip(run(holder, x), plain, exact, strict=True):
        errors = [float((one - right).norm() / right.norm()) for one in (ours, theirs)]
        assert errors[0] < 2 * errors[1] and errors[0] < 0.01


def test_other_norms_and_trained_ones_keep_their_own_code() -> None:
    assert use_fused_norms(norm_of(GemmaRMSNorm)) == 0  # weights count from 1
    assert use_fused_norms(norm_of().requires_grad_()) == 0


@pytest.mark.parametrize(("name", "count"), [("llama", 5), ("qwen3", 9), ("gemma", 0)])
def test_models_compute_as_before(name, count) -> None:
    model = lora_model(name)
    plain = plain_batch(model)
    assert use_fused_norms(model) == count
    torch.testing.assert_close(plain_batch(model), plain, atol=1e-5, rtol=0)

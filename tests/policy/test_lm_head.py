"""The LM head where it is trained, too."""

import torch

from raypo.policy import lm_head, pack_responses, response_logps

from .models import (
    PROMPTS,
    RESPONSES,
    WEIGHTS,
    assert_float32_gradients,
    lora_model,
    plain_batch,
)


def test_a_trained_head_gets_its_gradient(monkeypatch):
    monkeypatch.setitem(lm_head._CHUNK_BYTES, "cpu", 4 * 97 * 3)
    model = lora_model("qwen2")
    weight = model.get_output_embeddings().weight.requires_grad_()
    packed = response_logps(model, pack_responses(PROMPTS, RESPONSES, pad_token_id=0)).sums
    plain = plain_batch(model)
    ours, theirs = (
        torch.autograd.grad((WEIGHTS * sums).sum(), weight)[0] for sums in (packed, plain)
    )
    assert_float32_gradients(ours, theirs)

"""Scoring candidates in batches."""

import torch

from raypo.policy.scoring import score_responses

from .models import PROMPTS, RESPONSES, assert_float32_logps, lora_model, plain_batch


def test_scoring_in_any_batch_size_keeps_users_in_order():
    model = lora_model("llama")
    one = score_responses(model, PROMPTS, RESPONSES, pad_token_id=0, batch_size=1)
    both = score_responses(model, PROMPTS, RESPONSES, pad_token_id=0, batch_size=2)
    torch.testing.assert_close(one, both)
    assert_float32_logps(one, plain_batch(model).detach())
    assert not one.requires_grad

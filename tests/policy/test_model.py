"""Loading of base models."""

import pytest
import torch

from raypo.config import PolicyConfig
from raypo.policy import pack_responses
from raypo.policy.logps import PackedPolicy
from raypo.policy.model import load_base

from .architectures import tiny_model
from .models import PROMPTS, RESPONSES, plain_batch


@pytest.mark.parametrize(("model_type", "attention"), [("gpt_oss", "eager"), ("mistral", "sdpa")])
def test_a_base_model_has_the_fastest_attention_that_it_supports(tmp_path, model_type, attention):
    tiny_model(model_type, seed=0).save_pretrained(tmp_path)
    model = load_base(PolicyConfig(dtype="float32"), tmp_path)
    assert model.config._attn_implementation == attention
    packed = pack_responses(PROMPTS, RESPONSES, pad_token_id=0)
    with torch.no_grad():
        plain = plain_batch(model)
        torch.testing.assert_close(PackedPolicy(model)(packed), plain, atol=1e-4, rtol=0)

"""The LM head: its gradient where it is trained, and in bfloat16 for confident tokens."""

import pytest
import torch
from torch import nn

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


def confident_head(probability, scale=1.0):
    """A head, and hidden states [2, d] whose first tokens have nearly this probability."""
    torch.manual_seed(0)
    d, vocabulary = 64, 50
    head = nn.Linear(d, vocabulary, bias=False, dtype=torch.float64)
    nn.init.normal_(head.weight, std=d**-0.5)
    hidden = torch.randn(2, d, dtype=torch.float64)
    for row, token in ((0, 3), (1, 7)):
        own = head.weight[token].detach()
        for _ in range(60):  # move the row along its token's weights until the logit is right
            logits = scale * head(hidden)[row]
            others = torch.logsumexp(logits[torch.arange(vocabulary) != token], 0)
            wanted = others + torch.logit(torch.tensor(probability, dtype=torch.float64))
            hidden[row] += (wanted - logits[token]).detach() * own / (scale * own @ own)
    return head.requires_grad_(False).to(torch.bfloat16), hidden.detach().to(torch.bfloat16)


def relative_error(gradient, expected):
    return float((gradient.double() - expected).norm() / expected.norm())


# Hidden state of each prediction, and the predicted token.
PREDICTIONS = {
    "one": ([0, 1], [3, 7]),
    "several at a position": ([0, 0, 0, 1, 1], [3, 5, 9, 7, 7]),
    "the same thrice": ([0, 0, 0, 1], [3, 3, 3, 7]),
}


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("probability", [0.9, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("predictions", PREDICTIONS)
def test_gradients_of_confident_tokens_in_bfloat16_are_as_good_as_plain_ones(
    probability, predictions, scale
):
    head, hidden = confident_head(probability, scale)
    source_of, targets = map(torch.tensor, PREDICTIONS[predictions])
    weights = torch.linspace(0.5, 1.5, len(targets))

    def plain(dtype):
        leaf = hidden.to(dtype).requires_grad_()
        logits = scale * (leaf @ head.weight.to(dtype).T).to(
            torch.promote_types(dtype, torch.float32)
        )
        logps = logits.log_softmax(-1)[source_of, targets]
        return torch.autograd.grad((weights.to(logps) * logps).sum(), leaf)[0]

    leaf = hidden.clone().requires_grad_()
    logps = lm_head.token_logps(head, lm_head.LogitScaling(scale), leaf, source_of, targets)
    (ours,) = torch.autograd.grad((weights * logps).sum(), leaf)
    exact = plain(torch.float64)
    # Logits are rounded to bfloat16 in both: what is left of 1 - p is theirs.
    assert relative_error(ours, exact) <= 1.2 * relative_error(plain(torch.bfloat16), exact) + 0.01


@pytest.mark.parametrize("probability", [0.9, 0.999, 0.9999, 0.99999])
@pytest.mark.parametrize("predictions", PREDICTIONS)
def test_gradients_are_exact_for_the_logits_that_forward_rounded(probability, predictions):
    head, hidden = confident_head(probability)
    source_of, targets = map(torch.tensor, PREDICTIONS[predictions])
    weights = torch.linspace(0.5, 1.5, len(targets))
    leaf = hidden.clone().requires_grad_()
    logps = lm_head.token_logps(head, lm_head.LogitScaling(), leaf, source_of, targets)
    (ours,) = torch.autograd.grad((weights * logps).sum(), leaf)
    logits = head(hidden).double().requires_grad_()
    exact_logps = logits.log_softmax(-1)[source_of, targets]
    (per_logit,) = torch.autograd.grad((weights * exact_logps).sum(), logits)
    assert relative_error(ours, per_logit @ head.weight.double()) < 2**-8

"""Markers: tokens whose embeddings a projector gives, the same in packed rows as in plain ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raypo.data.hints import Markers
from raypo.errors import InputError
from raypo.policy import pack_responses, response_logps
from raypo.policy.logps import causal_lm_of
from raypo.policy.packed import packed_logps
from raypo.policy.projector import Projector, load_projector, new_projector, save_projector
from raypo.policy.unpacked import unpacked_logps

from .models import PROMPTS, RESPONSES, WEIGHTS, lora_model

FEATURES = 6
POSITIONS = [[0, 3], [1, 2]]


def markers() -> list[Markers]:
    generator = np.random.default_rng(0)
    return [
        Markers(own, generator.normal(size=(2, FEATURES)).astype(np.float32)) for own in POSITIONS
    ]


def plain_logps(model, projector) -> torch.Tensor:
    """Every prompt with every response by itself, with embeddings given to the decoder."""
    table, sums = causal_lm_of(model).get_input_embeddings(), []
    for prompt, responses, own in zip(PROMPTS, RESPONSES, markers(), strict=True):
        for response in responses:
            tokens = torch.tensor(prompt + response)
            embeddings = table(tokens).clone()
            embeddings[own.positions] = projector(torch.from_numpy(own.features))
            logits = model(inputs_embeds=embeddings[None]).logits[0]
            logps = logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]
            sums.append(logps[len(prompt) - 1 :].sum())
    return torch.stack(sums).view(2, 3)


def gradients(sums, parameters) -> list[torch.Tensor]:
    return list(torch.autograd.grad((sums * WEIGHTS).sum(), parameters))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("budget", [None, 1])
@pytest.mark.parametrize("way", ["packed", "padded", "by_length"])
def test_values_and_gradients_equal_the_plain_computation(name, budget, way) -> None:
    model = lora_model(name)
    projector = new_projector(causal_lm_of(model), FEATURES, seed=1)
    parameters = [p for p in model.parameters() if p.requires_grad] + list(projector.parameters())
    packed = pack_responses(PROMPTS, RESPONSES, 0, budget, markers=markers())
    plain = plain_logps(model, projector)
    if way == "packed":
        sums = response_logps(model, packed, projector).sums
    else:
        sums = unpacked_logps(causal_lm_of(model), packed, way == "by_length", projector=projector)
    torch.testing.assert_close(sums, plain, atol=1e-5, rtol=0)
    expected = gradients(plain, parameters)
    assert all(float(gradient.abs().max()) > 0 for gradient in expected[-4:])
    for ours, theirs in zip(gradients(sums, parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_rows_without_markers_have_the_tokens_own_embeddings() -> None:
    model = lora_model("llama")
    projector = new_projector(causal_lm_of(model), FEATURES, seed=1)
    packed = pack_responses(PROMPTS, RESPONSES, 0, markers=markers())
    plain = response_logps(model, pack_responses(PROMPTS, RESPONSES, 0)).sums
    without = response_logps(model, packed.without_markers(), projector).sums
    torch.testing.assert_close(without, plain)
    assert not torch.allclose(response_logps(model, packed, projector).sums, plain, atol=1e-3)


def test_markers_without_a_projector_are_refused() -> None:
    model = causal_lm_of(lora_model("llama"))
    packed = pack_responses(PROMPTS, RESPONSES, 0, markers=markers())
    with pytest.raises(ValueError, match="there is no projector"):
        packed_logps(model, packed)


def test_a_new_projector_is_as_large_as_the_embeddings_and_the_same_for_a_seed() -> None:
    causal_lm = causal_lm_of(lora_model("llama"))
    projector = new_projector(causal_lm, FEATURES, seed=1)
    made = projector(torch.randn(2000, FEATURES)).detach()
    size = float(causal_lm.get_input_embeddings().weight.detach().std())
    assert float(made.std()) == pytest.approx(size, rel=0.2)
    again = new_projector(causal_lm, FEATURES, seed=1)
    assert torch.equal(again.outer.weight, projector.outer.weight)


def test_a_projector_is_saved_beside_the_adapter(tmp_path: Path) -> None:
    projector = Projector(FEATURES, 8)
    assert load_projector(tmp_path) is None
    save_projector(tmp_path, projector.state_dict())
    found = load_projector(tmp_path)
    features = torch.randn(3, FEATURES)
    assert torch.equal(found(features), projector(features))
    (tmp_path / "projector.json").write_text('{"num_features": 5, "hidden": 8}')
    with pytest.raises(InputError, match=r"projector.safetensors: does not fit"):
        load_projector(tmp_path)

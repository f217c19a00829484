"""TALLRec: candidates one at a time, answered by Yes or No, packed behind the shared history."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import AlignConfig, SftConfig, parse_config
from raypo.data.prepare import prepare
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.errors import InputError
from raypo.io.run_folder import read_metrics
from raypo.objectives import PreferenceBatch
from raypo.objectives.yes_no import YesNoObjective
from raypo.policy import pack_responses, response_logps
from raypo.policy.logps import causal_lm_of
from raypo.training.job import check_inputs
from raypo.training.local import train_locally
from tests.policy.models import lora_model

from .inputs import log_config, settings

TITLES = ["Alien", "Brazil (1985)", "Cité", "Dune"]


@pytest.mark.parametrize("model", ["tiny-random", "smollm2-135m-instruct"])
def test_candidates_share_the_history_and_end_with_yes_or_no(model: str) -> None:
    tokenizer = load_tokenizer(resolve_model(model))
    encoder = Encoder(tokenizer, load_template("tallrec"), TITLES)
    users = encoder.encode([[0, 1]], [[2, 3]])
    assert users.is_pointwise
    (prompt,), (responses,) = users.prompts, users.responses
    texts = [encoder.tokenizer.decode(prompt + one) for one in responses]
    start = "Someone chose these, oldest first: Alien; Brazil (1985)\nWould they also choose"
    expected = [
        f"{start} {title}?\nAnswer: {word}" for title in ("Cité", "Dune") for word in ("Yes", "No")
    ]
    if model == "tiny-random":  # " Yes" and " No" are several tokens, of which the first differ
        assert all(
            full.startswith(text.strip()) for full, text in zip(expected, texts, strict=True)
        )
    else:
        assert texts == expected
    assert responses[0][:-1] == responses[1][:-1] and responses[0][-1] != responses[1][-1]


def test_results_are_the_log_odds_of_yes() -> None:
    model = lora_model("llama")
    prompts = [[5, 6, 7], [8, 9]]
    pairs = [
        [[10, 11, 2], [10, 11, 3], [12, 2], [12, 3]],
        [[13, 2], [13, 3], [14, 15, 2], [14, 15, 3]],
    ]
    packed = pack_responses(prompts, pairs, 0, is_paired=True)
    result = response_logps(model.requires_grad_(False), packed)
    assert result.lengths.tolist() == [[3, 2], [2, 3]]
    for user, prompt in enumerate(prompts):
        for item in range(2):
            before = prompt + pairs[user][2 * item][:-1]
            logits = causal_lm_of(model)(torch.tensor([before])).logits[0, -1]
            expected = logits[2] - logits[3]
            assert float(result.sums[user, item]) == pytest.approx(
                float(expected.detach()), abs=1e-5
            )


def test_the_loss_is_the_mean_likelihood_of_the_answers() -> None:
    yes = torch.tensor([0.3, -1.2], requires_grad=True)
    no = torch.tensor([[0.5, -2.0, 0.1], [1.5, -0.2, -3.0]])
    out = YesNoObjective()(PreferenceBatch(yes, no))
    probability = [1 / (1 + np.exp(-np.float64(x))) for x in (0.3, -1.2)]
    probability += [1 - 1 / (1 + np.exp(-np.float64(x))) for x in no.flatten().tolist()]
    assert float(out.loss.detach()) == pytest.approx(-np.log(probability).mean(), abs=1e-6)
    assert out.metrics["answers/accuracy"] == pytest.approx(4 / 8)
    out.loss.backward()
    expected = -(1 - np.array(probability[:2])) / 8
    assert np.allclose(yes.grad.numpy(), expected, atol=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(log_config(folder, folder / "data"))
    return folder / "data"


def yes_no_settings(data: Path, output: Path):
    values = settings(data, output)
    return values | {"policy": values["policy"] | {"prompt": "tallrec"}}


def test_fine_tuning_learns_to_say_yes_to_targets(data: Path, tmp_path: Path) -> None:
    config = parse_config(
        SftConfig, yes_no_settings(data, tmp_path / "sft") | {"epochs": 6}, "test"
    )
    train_locally(config)
    losses = [line["loss"] for line in read_metrics(config.output)]
    assert losses[0] == pytest.approx(np.log(2), abs=0.1)
    assert np.mean(losses[-6:]) < losses[0]
    record = json.loads((config.output / "adapter/prompt.json").read_text())
    assert "{candidate}" in record["template"]


def test_what_does_not_go_with_yes_and_no_is_refused(data: Path, tmp_path: Path) -> None:
    values = yes_no_settings(data, tmp_path / "sft")
    train_locally(parse_config(SftConfig, values, "test"))
    aligned = settings(data, tmp_path / "align") | {"objective": {"name": "simpo"}}
    policy = aligned["policy"] | {"adapter": tmp_path / "sft/adapter"}
    with pytest.raises(InputError, match="alignment needs titles"):
        check_inputs(parse_config(AlignConfig, aligned | {"policy": policy}, "test"))
    hinted = values["policy"] | {"hints": "rank", "hints_recommender": "popularity"}
    with pytest.raises(InputError, match="carries none"):
        check_inputs(parse_config(SftConfig, values | {"policy": hinted}, "test"))


def test_a_template_with_the_candidate_before_the_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{candidate} after {history}?")
    with pytest.raises(InputError, match=r"\{history\} has to stand before \{candidate\}"):
        load_template(tmp_path / "t.txt")

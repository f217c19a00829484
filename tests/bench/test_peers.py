"""The parts of `benchmarks/peers.py` that need no other trainer's code."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from raypo.assets import tiny_random
from raypo.bench.measure import Measurement
from raypo.config import LoraConfig, PolicyConfig
from raypo.data.tokenisation import EncodedUsers, load_tokenizer
from raypo.policy.adapters import load_policy

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROMPTS = ["Alien\nHeat\nAnswer:", "Fargo\nAnswer:"]
TITLES = [[" Brazil", " Alien 3", " Up"], [" Heat", " M", " Fargo"]]


@pytest.fixture
def peers(monkeypatch):
    """The script and, in its namespace, what it imports of its neighbours."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import peers

    return peers


@pytest.fixture
def tokenizer():
    return load_tokenizer(tiny_random())


@pytest.fixture
def users(tokenizer):
    def ids(text):
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    return EncodedUsers(
        [ids(prompt) for prompt in PROMPTS],
        [[[*ids(title), tokenizer.eos_token_id] for title in titles] for titles in TITLES],
    )


def test_texts_are_what_was_encoded(peers, users, tokenizer):
    texts = peers.Texts.of(users, tokenizer)
    assert texts.prompts == PROMPTS and texts.responses == TITLES
    assert texts.rows(2)[1] == {
        "prompt": PROMPTS[1],
        "chosen": " Heat",
        "rejected1": " M",
        "rejected2": " Fargo",
    }
    assert texts.pairs()[0] == {"prompt": PROMPTS[0], "chosen": " Brazil", "rejected": " Alien 3"}


def test_both_ways_to_the_reference_give_the_loss_of_s_dpo(peers, users, tokenizer):
    config = PolicyConfig(model="tiny-random", dtype="float32", lora=LoraConfig(rank=2))
    model = load_policy(config, tiny_random(), 0)
    each, precomputed = peers.make_raypo(model, users, tokenizer, [2], 0.5)
    reference = each.logps()
    peers.set_adapter(each, peers.moved(peers.adapter_weights(model), 0.3, 1))
    agreement = peers.compare(each, precomputed)
    assert agreement.num_same == agreement.num_responses == 6
    assert agreement.logps == 0 and agreement.loss < 1e-6 and agreement.gradient < 1e-5
    gains = each.logps() - reference
    assert gains.abs().max() > 0.01
    scores = 0.5 * (gains[:, :1] - gains[:, 1:])
    expected = (-scores).exp().sum(1).log1p().mean()  # log(1 + sum_i exp(-beta margin_i))
    torch.testing.assert_close(each().cpu(), expected, atol=1e-5, rtol=1e-5)


def test_costs_are_ratios_to_the_step_with_the_same_reference(peers):
    model = torch.nn.Linear(1 << 18, 1, bias=False)  # 1 MiB

    def step(trainer, reference, models):
        return SimpleNamespace(trainer=trainer, num_negatives=3, reference=reference, models=models)

    steps = [
        step("raypo", "each step", [model]),
        step("raypo", "precomputed", [model, model]),
        step("S-DPO", "each step", [model, torch.nn.Linear(1 << 18, 1, bias=False)]),
    ]
    measured = [
        Measurement((2.0, 3.0, 4.0), 2 << 20),
        Measurement((1.0, 1.0, 1.0), None),
        Measurement((8.0, 6.0, 5.0), 9 << 20),
    ]
    own, precomputed, peer = peers.cost_rows("float32", steps, measured)
    assert own["time / raypo"] == 1 and precomputed["time / raypo"] == 1
    assert peer["time / raypo"] == 2.5 and peer["median / raypo"] == 2
    assert peer["peak / raypo"] == 4.5 and precomputed["peak / raypo"] is None
    assert precomputed["weights (MiB)"] == 1 and peer["weights (MiB)"] == 2


def test_tables_are_aligned_markdown(peers):
    rows = [{"trainer": "TRL", "peak": None}, {"trainer": "raypo", "peak": 12}]
    assert peers.markdown(rows).splitlines() == [
        "| trainer | peak |",
        "| ------- | ---- |",
        "| TRL     |      |",
        "| raypo   | 12   |",
    ]

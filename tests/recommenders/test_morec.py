"""MoRec: item vectors from texts, by a frozen encoder or one that is trained too."""

import json
from dataclasses import replace

import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import RecommenderConfig
from raypo.errors import InputError
from raypo.recommenders import train as training
from raypo.recommenders.items import TextItems
from raypo.recommenders.text_encoder import TextEncoder
from raypo.recommenders.train import load_recommender, train_recommender
from tests.recommenders.inputs import circle_dataset

TEXTS = ["Toy Story", "Heat", "A much longer title than the others have", "Heat", "", "X"]


@pytest.fixture
def encoder():
    return TextEncoder(resolve_model("tiny-random"), TEXTS)


@pytest.fixture
def run(tmp_path, monkeypatch):
    def dataset(folder):
        made = circle_dataset(folder)
        words = [f"item {number} {'even' if number % 2 == 0 else 'odd'}" for number in range(12)]
        return replace(made, items=made.items.assign(title=words))

    monkeypatch.setattr(training, "load_dataset", dataset)
    settings = {"hidden": 16, "batch_size": 16, "heads": 2, "encoder": "tiny-random"}

    def start(name, **changes):
        config = RecommenderConfig(
            data=tmp_path, output=tmp_path / name, kind="morec", **settings | changes
        )
        return config, train_recommender(config)

    return start


def test_a_text_is_the_mean_of_its_own_tokens(encoder):
    together = encoder.vectors()
    for item, text in enumerate(TEXTS):
        alone = TextEncoder(resolve_model("tiny-random"), [text]).vectors()
        torch.testing.assert_close(together[item : item + 1], alone, atol=1e-6, rtol=1e-5)
    assert torch.equal(together[1], together[3])
    assert not torch.allclose(together[0], together[1])


def test_the_encoders_gradient_is_that_of_one_graph(encoder):
    torch.manual_seed(0)
    weights = torch.randn(len(TEXTS), encoder.size)
    encoder.backward(weights)
    found = {name: p.grad.clone() for name, p in encoder.model.named_parameters()}
    encoder.model.zero_grad()
    vectors = torch.empty(len(TEXTS), encoder.size)
    for items, ids, mask in encoder._batches:
        vectors[items] = encoder._encode(ids, mask)
    torch.autograd.backward((vectors * weights).sum())
    for name, parameter in encoder.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_items_of_one_text_have_one_vector_and_need_no_history(encoder):
    items = TextItems(len(TEXTS), encoder.size, 16)
    items.set_texts(encoder.vectors())
    assert torch.equal(items.weight[1], items.weight[3])
    embeddings = torch.randn(2, 16)
    every = torch.arange(len(TEXTS)).repeat(2, 1)
    torch.testing.assert_close(items.score(embeddings, every), items.score_all(embeddings))


def test_only_end_to_end_changes_the_encoder(run):
    before = TextEncoder(resolve_model("tiny-random"), [f"item {n}" for n in range(12)])
    frozen, _ = run("frozen", max_epochs=2)
    assert not (frozen.output / "encoder").exists()
    trained, _ = run(
        "trained", max_epochs=2, encoder_training="end-to-end", encoder_learning_rate=1e-3
    )
    texts = [f"item {number} {'even' if number % 2 == 0 else 'odd'}" for number in range(12)]
    kept = TextEncoder(trained.output / "encoder", texts).vectors()
    loaded = load_recommender(trained.output)
    # Its vectors are those of the encoder that is kept, so that new items can be encoded.
    torch.testing.assert_close(loaded.items.texts, kept)
    assert not torch.allclose(load_recommender(frozen.output).items.texts, kept)
    assert before.size == json.loads((trained.output / "model.json").read_text())["text_size"]


def test_a_missing_encoder_is_an_error_before_the_run_folder(run, tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a built-in model"):
        run("absent", encoder="no-such-encoder")
    assert not (tmp_path / "absent").exists()

"""Answers of the engine pool are those of the model that was asked, whoever else is asked too."""

import pandas as pd
import pytest
import torch

from raypo.config import EngineConfig, PolicyConfig
from raypo.data.assets import resolve_model
from raypo.data.encoding import Encoder
from raypo.data.prompts import load_template
from raypo.policy.loading import load_policy, load_tokenizer, save_adapter
from raypo.runs import no_progress

# Ray's own modules are written against older pydantic; what they say is not about us.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def strong_adapter(folder, model_folder, seed):
    """An adapter that changes every answer."""
    policy = load_policy(PolicyConfig(dtype="float32"), model_folder, seed, lora_float32=True)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in policy.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3, generator=generator)
    folder.mkdir()
    save_adapter(policy, folder)
    return policy.eval()


def greedy(model, prompt, encoder, max_new_tokens):
    answer = model.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=max_new_tokens, do_sample=False
    )[0, len(prompt) :]
    # vLLM holds back the bytes of an unfinished character.
    return encoder.decode(answer.tolist()).rstrip("\ufffd").strip().split("\n")[0].strip()


def test_base_and_adapters_answer_as_they_do_alone(tmp_path):
    from raypo.orchestration.cluster import connect

    connect()
    from raypo.orchestration.generate import generate

    model_folder = resolve_model("tiny-random")
    titles = [
        f"{word} Film" for word in ("Red", "Blue", "Green", "Black", "White", "Gold", "Grey", "X")
    ]
    encoder = Encoder(load_tokenizer(model_folder), load_template(None), titles)
    models = {
        name: strong_adapter(tmp_path / name, model_folder, seed)
        for seed, name in enumerate(("one", "two"))
    }
    # The base model last: by then the engine that serves both adapters has loaded them.
    adapters = {"one": tmp_path / "one", "two": tmp_path / "two", "base": None}
    rows = pd.DataFrame(
        {
            "row": range(3),
            "history": [[0, 1], [2], [3, 4, 5]],
            "candidates": [[6, 7, 2], [0, 7, 6], [1, 2, 0]],
        }
    )
    config = EngineConfig(batch_size=2, max_new_tokens=6)
    answers = generate(
        rows, adapters, model_folder, encoder, config, "float32", no_progress
    ).set_index(["name", "row"])["answer"]
    for row, history, candidates in rows.itertuples(index=False):
        prompt = encoder.prompt(history, candidates)
        expected = {name: greedy(model, prompt, encoder, 6) for name, model in models.items()}
        with models["one"].disable_adapter():
            expected["base"] = greedy(models["one"], prompt, encoder, 6)
        assert len(set(expected.values())) == 3  # a test that could not fail would show nothing
        for name, answer in expected.items():
            assert answers[name, row] == answer

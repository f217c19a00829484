"""Answers of the engine pool are those of the model that was asked, whoever else is asked too."""

import os
import signal

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import EngineConfig, PolicyConfig, ScorerConfig
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.evaluation.answer_parsing import match_exactly
from raypo.evaluation.answer_store import AnswerStore
from raypo.io.progress import no_progress
from raypo.policy.adapters import load_policy, save_adapter
from raypo.policy.model import greedy_answer

# Ray's own modules are written against older pydantic; what they say is not about us.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TITLES = [
    f"{word} Film" for word in ("Red", "Blue", "Green", "Black", "White", "Gold", "Grey", "X")
]
CONFIG = EngineConfig(batch_size=2, max_new_tokens=6)


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
    tokens = greedy_answer(model, prompt, max_new_tokens, encoder.tokenizer.eos_token_id)
    # vLLM holds back the bytes of an unfinished character.
    return encoder.decode(tokens).rstrip("\ufffd").strip().split("\n")[0].strip()


@pytest.fixture(scope="module")
def model_folder():
    from raypo.orchestration.cluster import connect

    connect()
    return resolve_model("tiny-random")


@pytest.fixture(scope="module")
def encoder(model_folder):
    return Encoder(load_tokenizer(model_folder), load_template(None), TITLES)


@pytest.fixture(scope="module")
def models(model_folder, tmp_path_factory):
    """Two adapters: name -> (folder, model)."""
    place = tmp_path_factory.mktemp("adapters")
    return {
        name: (place / name, strong_adapter(place / name, model_folder, seed))
        for seed, name in enumerate(("one", "two"))
    }


def questions(names, rows=3):
    generator = np.random.default_rng(0)
    asked = pd.DataFrame(
        {
            "row": range(rows),
            "order": 0,
            "history": [generator.permutation(5)[:3].tolist() for _ in range(rows)],
            "candidates": [generator.permutation(8)[:4].tolist() for _ in range(rows)],
        }
    )
    return pd.concat([asked.assign(name=name) for name in names], ignore_index=True)


def asked_of(engines, folder, asked, ways):
    """Answers by way: free, constrained or both, from one start of the engines."""
    from raypo.orchestration.inference.generate import RequestBatch, ask

    sheets = {
        way: RequestBatch(asked, AnswerStore(folder / f"{way}.jsonl"), way == "constrained")
        for way in ways
    }
    ask(list(sheets.values()), *engines)
    for sheet in sheets.values():
        sheet.kept.close()
        assert sheet.errors == {}
    return {way: sheet.kept.frame() for way, sheet in sheets.items()}


def test_base_and_adapters_answer_as_they_do_alone(tmp_path, model_folder, encoder, models):
    # The base model last: by then the engine that serves both adapters has loaded them.
    adapters = {**{name: folder for name, (folder, _) in models.items()}, "base": None}
    asked = questions(adapters)
    starts = []

    def progress(done, total, note=""):
        starts.append(note == "starting engines")

    engines = (adapters, model_folder, encoder, CONFIG, "float32", progress)
    frames = asked_of(engines, tmp_path, asked, ("free", "constrained"))
    assert sum(starts) == 2  # one for the adapters, one for the base model
    answers = frames["free"].set_index(["name", "row"])["answer"]
    for row in asked[asked["name"] == "base"].itertuples():
        prompt = encoder.prompt(row.history, row.candidates)
        expected = {n: greedy(model, prompt, encoder, 6) for n, (_, model) in models.items()}
        first = models["one"][1]
        with first.disable_adapter():
            expected["base"] = greedy(first, prompt, encoder, 6)
        assert len(set(expected.values())) == 3  # a test that could not fail would show nothing
        for name, answer in expected.items():
            assert answers[name, row.row] == answer
    chosen = frames["constrained"].set_index(["name", "row"])["answer"]
    for row in asked.itertuples():
        titles = [TITLES[item] for item in row.candidates]
        assert match_exactly(chosen[row.name, row.row], titles) is not None


def test_a_killed_engine_loses_and_doubles_no_row(tmp_path, model_folder, encoder, models):
    adapters = {"one": models["one"][0]}
    asked = questions(adapters, rows=120)
    killed = []

    def kill_once(done: int, total: int, note: str = "") -> None:
        if done < 20 or killed:
            return
        for process in psutil.process_iter(["cmdline"]):
            if any("EngineCore" in part for part in process.info["cmdline"] or []):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    config = EngineConfig(batch_size=8, max_new_tokens=6)
    engines = (adapters, model_folder, encoder, config, "float32", kill_once)
    frame = asked_of(engines, tmp_path, asked, ("free",))["free"]
    assert killed
    assert sorted(frame["row"]) == list(range(120))
    lines = (tmp_path / "free.jsonl").read_text().splitlines()
    assert len(lines) == 120
    for row, said in zip(asked.head(10).itertuples(), frame["answer"], strict=False):
        prompt = encoder.prompt(row.history, row.candidates)
        assert said == greedy(models["one"][1], prompt, encoder, 6)


def test_both_scorers_agree(tmp_path, model_folder, encoder, models):
    from raypo.orchestration.inference.score import score

    adapters = {"one": models["one"][0]}
    asked = questions(adapters, rows=5)
    frames = {}
    for kind in ("packed", "vllm"):
        kept = AnswerStore(tmp_path / f"{kind}.jsonl")
        config = ScorerConfig(kind=kind, workers=1, max_model_len=512, kv_cache_gib=1)
        policy = PolicyConfig(dtype="float32")
        score(asked, adapters, policy, model_folder, encoder, config, kept, no_progress)
        kept.close()
        frames[kind] = kept.frame()
    packed, vllm = (np.stack(frames[kind]["logps"].to_list()) for kind in ("packed", "vllm"))
    assert np.allclose(packed, vllm, atol=2e-3)
    assert (packed.argmax(axis=1) == vllm.argmax(axis=1)).all()
    lengths = frames["packed"]["lengths"].iloc[0]
    first = asked.iloc[0]
    assert lengths == [len(encoder.response(item)) for item in first["candidates"]]


def test_an_engine_of_two_processes_answers_like_one(tmp_path, model_folder, encoder, models):
    """Tensor parallel: the weights cut over two cores."""
    config = CONFIG.model_copy(update={"tensor_parallel": 2})
    asked = questions(["one"])
    folder, model = models["one"]
    engines = ({"one": folder}, model_folder, encoder, config, "float32", no_progress)
    answers = asked_of(engines, tmp_path, asked, ["free"])["free"].set_index("row")["answer"]
    for row in asked.itertuples():
        prompt = encoder.prompt(row.history, row.candidates)
        assert answers[row.row] == greedy(model, prompt, encoder, 6)

"""Answers of the engine pool are those of the requested model, whichever others it serves."""

import numpy as np
import pandas as pd
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import EngineConfig, PolicyConfig, ScorerConfig
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.evaluation.answer_parsing import match_exactly
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.progress import no_progress
from raypo.policy.adapters import load_policy, save_adapter
from raypo.policy.model import greedy_answer
from tests.orchestration.processes import started

# Ray's own modules are written against older pydantic and warn about it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("shared_ray_of_module"),
    pytest.mark.filterwarnings("ignore"),
]
TITLES = [
    f"{word} Film" for word in ("Red", "Blue", "Green", "Black", "White", "Gold", "Grey", "X")
]
CONFIG = EngineConfig(batch_size=2, max_new_tokens=6)
POLICY = PolicyConfig(dtype="float32")


def strong_adapter(folder, model_folder, seed):
    """An adapter that changes every answer."""
    policy = load_policy(PolicyConfig(dtype="float32"), model_folder, seed)
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
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: (folder / name, strong_adapter(folder / name, model_folder, seed))
        for seed, name in enumerate(("one", "two"))
    }


def make_requests(names, rows=3):
    generator = np.random.default_rng(0)
    requests = pd.DataFrame(
        {
            "row": range(rows),
            "permutation": 0,
            "history": [generator.permutation(5)[:3].tolist() for _ in range(rows)],
            "candidates": [generator.permutation(8)[:4].tolist() for _ in range(rows)],
        }
    )
    return pd.concat([requests.assign(name=name) for name in names], ignore_index=True)


def generated(batches, models, config, progress=no_progress):
    """Answers of requests by mode, from one start of the engines."""
    from raypo.orchestration.inference.generate import generate

    generate(batches, models, config, progress)
    for batch in batches:
        batch.store.close()
        assert batch.errors == {}
    return {batch.mode: batch.store.frame() for batch in batches}


def batch(mode, requests, folder):
    return RequestBatch(mode, requests, AnswerStore(folder / f"{mode}.jsonl"))


def test_base_and_adapters_answer_as_they_do_alone(tmp_path, model_folder, encoder, models):
    # The base model last: by then the engine that serves both adapters has loaded them.
    adapters = {**{name: folder for name, (folder, _) in models.items()}, "base": None}
    requests = make_requests(adapters)
    starts = []

    def progress(done, total, note=""):
        starts.append(note == "starting engines")

    batches = [batch(mode, requests, tmp_path) for mode in ("generate", "constrained")]
    served = LanguageModels(model_folder, adapters, POLICY, encoder)
    frames = generated(batches, served, CONFIG, progress)
    assert sum(starts) == 2  # one for the adapters, one for the base model
    answers = frames["generate"].set_index(["name", "row"])["answer"]
    for row in requests[requests["name"] == "base"].itertuples():
        prompt = encoder.prompt(row.history, row.candidates)
        expected = {n: greedy(model, prompt, encoder, 6) for n, (_, model) in models.items()}
        first = models["one"][1]
        with first.disable_adapter():
            expected["base"] = greedy(first, prompt, encoder, 6)
        assert len(set(expected.values())) == 3  # otherwise the test could not fail
        for name, answer in expected.items():
            assert answers[name, row.row] == answer
    chosen = frames["constrained"].set_index(["name", "row"])["answer"]
    for row in requests.itertuples():
        titles = [TITLES[item] for item in row.candidates]
        assert match_exactly(chosen[row.name, row.row], titles) is not None


def test_a_killed_engine_loses_no_row_and_a_request_that_it_refuses_only_its_own(
    tmp_path, model_folder, encoder, models
):
    from raypo.orchestration.inference.generate import generate

    adapters = {"one": models["one"][0]}
    requests = make_requests(adapters, rows=120)
    lengths = [len(encoder.prompt(*user)) for user in requests[["history", "candidates"]].values]
    too_long = 60
    requests.at[too_long, "history"] = list(range(8)) * 40
    killed = []

    def kill_once(done: int, total: int, note: str = "") -> None:
        if not done or killed:
            return
        for process in started("EngineCore"):
            process.kill()
            killed.append(process.pid)

    # Long answers: the engine is still at work when the first of them arrive.
    config = EngineConfig(batch_size=8, max_new_tokens=96, max_model_len=max(lengths) + 100)
    served = LanguageModels(model_folder, adapters, POLICY, encoder)
    requested = batch("generate", requests, tmp_path)
    generate([requested], served, config, kill_once)
    requested.store.close()
    assert killed
    assert set(requested.errors) == {("one", too_long)}
    assert "maximum context length" in requested.errors["one", too_long]
    frame = requested.store.frame()
    assert sorted(frame["row"]) == [row for row in range(120) if row != too_long]
    lines = (tmp_path / "generate.jsonl").read_text().splitlines()
    assert len(lines) == 119
    for row, said in zip(requests.head(10).itertuples(), frame["answer"], strict=False):
        prompt = encoder.prompt(row.history, row.candidates)
        assert said == greedy(models["one"][1], prompt, encoder, 96)


def test_both_scorers_agree(tmp_path, model_folder, encoder, models):
    from raypo.orchestration.inference.score import score

    adapters = {"one": models["one"][0]}
    served = LanguageModels(model_folder, adapters, POLICY, encoder)
    requests = make_requests(adapters, rows=5)
    frames = {}
    for kind in ("packed", "vllm"):
        config = ScorerConfig(kind=kind, workers=1, max_model_len=512, kv_cache_gib=1)
        scored = batch("likelihood", requests, tmp_path / kind)
        score(scored, served, config, no_progress)
        scored.store.close()
        frames[kind] = scored.store.frame()
    packed, vllm = (np.stack(frames[kind]["logps"].to_list()) for kind in ("packed", "vllm"))
    assert np.allclose(packed, vllm, atol=2e-3)
    assert (packed.argmax(axis=1) == vllm.argmax(axis=1)).all()
    lengths = frames["packed"]["lengths"].iloc[0]
    first = requests.iloc[0]
    assert lengths == [len(encoder.response(item)) for item in first["candidates"]]


def test_an_engine_of_two_processes_answers_like_one(tmp_path, model_folder, encoder, models):
    """Tensor parallelism: the weights are split over two cores."""
    config = CONFIG.model_copy(update={"tensor_parallel": 2})
    requests = make_requests(["one"])
    folder, model = models["one"]
    served = LanguageModels(model_folder, {"one": folder}, POLICY, encoder)
    batches = [batch("generate", requests, tmp_path)]
    answers = generated(batches, served, config)["generate"].set_index("row")["answer"]
    for row in requests.itertuples():
        prompt = encoder.prompt(row.history, row.candidates)
        assert answers[row.row] == greedy(model, prompt, encoder, 6)

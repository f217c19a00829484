"""Which requests reach the engines, how often, and what is stored of their answers."""

from pathlib import Path

import pandas as pd
import pytest

from raypo.config import EngineConfig, PolicyConfig
from raypo.data.tokenisation import EncodedUsers
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.progress import no_progress

# Ray's own modules are written against older pydantic and warn about it.
pytestmark = pytest.mark.filterwarnings("ignore")


class WordEncoder:
    """Items as their numbers, without a tokenizer."""

    titles = ("Red", "Blue", "Green")
    hints = None

    def encode(self, histories, candidates, responses):
        users = zip(histories, candidates, strict=True)
        prompts = [[*history, *listed] for history, listed in users]
        return EncodedUsers(prompts, [[] for _ in prompts])

    def response(self, item):
        return [item]


def language_models(adapters):
    return LanguageModels(Path("/base"), adapters, PolicyConfig(), WordEncoder())


def batch(folder, names, mode="generate"):
    requests = pd.DataFrame({"row": [0, 1], "permutation": 0})
    requests["history"] = [[0], [1]]
    requests["candidates"] = [[1, 2], [0, 2]]
    everyone = pd.concat([requests.assign(name=name) for name in names], ignore_index=True)
    return RequestBatch(mode, everyone, AnswerStore(folder / f"{mode}.jsonl"))


@pytest.fixture
def pool(monkeypatch):
    """Engines that record their starts, fail `failures[name, row]` times and lose `lost`."""
    from raypo.orchestration.inference import generate
    from raypo.orchestration.inference.engine_rows import engine_answer

    class Pool:
        def __init__(self):
            self.failures = {}
            self.lost = set()
            self.starts = []
            self.generate = generate.generate

        def run(self, requests, models, config):
            self.starts.append((models.names, len(requests)))
            for request in requests.to_dict("records"):
                key = request["name"], request["row"]
                failing = self.failures.get(key, 0)
                self.failures[key] = failing - 1
                if failing > 0:  # Ray does not postprocess what failed
                    yield request | {"__inference_error__": "engine died"}
                elif key not in self.lost:
                    text = {"generated_text": f"\n{request['model']}\n?"}
                    yield engine_answer(request | text) | {"__inference_error__": ""}

    fake = Pool()
    monkeypatch.setattr(generate, "_run_pool", fake.run)
    return fake


def test_a_failed_request_is_repeated_once(tmp_path, pool):
    pool.failures = {("base", 0): 1, ("base", 1): 2}
    requests = batch(tmp_path, ["base"])
    pool.generate([requests], language_models({"base": None}), EngineConfig(), no_progress)
    assert pool.starts == [(["base"], 2), (["base"], 2)]
    assert requests.errors == {("base", 1): "engine died"}
    assert requests.store.frame()["answer"].tolist() == ["/base"]
    requests.store.close()


def test_a_request_that_never_comes_back_is_repeated_and_then_an_error(tmp_path, pool):
    pool.lost = {("base", 1)}
    requests = batch(tmp_path, ["base"])
    pool.generate([requests], language_models({"base": None}), EngineConfig(), no_progress)
    assert pool.starts == [(["base"], 2), (["base"], 1)]
    assert requests.errors == {("base", 1): "the engines returned no answer"}
    requests.store.close()


def test_stored_answers_are_not_requested_again(tmp_path, pool):
    models = language_models({"base": None})
    for starts in (1, 1):
        requests = batch(tmp_path, ["base"])
        pool.generate([requests], models, EngineConfig(), no_progress)
        requests.store.close()
        assert len(pool.starts) == starts
        assert len(requests.store) == 2


def test_the_base_model_has_engines_of_its_own_on_a_cpu(tmp_path, pool):
    models = language_models({"base": None, "one": tmp_path})
    for gpus, expected in ((0, [["base"], ["one"]]), (1, [["base", "one"]])):
        pool.starts.clear()
        batches = [
            batch(tmp_path / str(gpus), models.names, mode) for mode in ("generate", "constrained")
        ]
        config = EngineConfig(gpus_per_engine=gpus)
        pool.generate(batches, models, config, no_progress)
        assert [names for names, _ in pool.starts] == expected
        for requests in batches:
            requests.store.close()
            answers = requests.store.frame().groupby("name")["answer"].unique()
            assert answers["base"].tolist() == ["/base"]
            assert answers["one"].tolist() == [str(tmp_path.resolve())]

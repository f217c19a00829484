"""Generated answers are checked where engines run, never in the driver."""

import pandas as pd
import pytest

from raypo.assets import resolve_model
from raypo.config import EngineConfig, PolicyConfig, ScorerConfig
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.evaluation.greedy_check import GreedyCheck, first_line
from raypo.evaluation.models import LanguageModels
from raypo.orchestration.inference.policy_tasks import (
    check_answers,
    engine_resources,
    merge_on_cluster,
)
from raypo.policy import adapters
from raypo.policy.model import greedy_answer, load_base

# Ray's own modules are written against older pydantic and warn about it.
pytestmark = pytest.mark.filterwarnings("ignore")
TITLES = ["Red Film", "Blue Film", "Green Film"]
POLICY = PolicyConfig(model="tiny-random", dtype="float32")
CONFIG = EngineConfig(cpus_per_engine=2, max_new_tokens=6)


@pytest.fixture(scope="module")
def models():
    base = resolve_model(POLICY.model)
    encoder = Encoder(load_tokenizer(base), load_template(None), TITLES)
    return LanguageModels(base, {"base": None}, POLICY, encoder)


@pytest.fixture
def connected(shared_ray):
    from raypo.orchestration.cluster import connect

    connect()


def refuse(*arguments, **options):
    raise AssertionError("the driver loaded the policy")


def make_requests(count):
    requests = pd.DataFrame({"name": "base", "row": range(count), "permutation": 0})
    requests["history"] = [[row % 3] for row in range(count)]
    requests["candidates"] = [[0, 1, 2]] * count
    return requests


def answered(requests, models):
    """The policy's own answers, the last of them changed."""
    model, encoder = load_base(POLICY, models.folder).eval(), models.encoder
    texts = []
    for row in requests.itertuples():
        prompt = encoder.prompt(row.history, row.candidates)
        tokens = greedy_answer(model, prompt, 6, encoder.tokenizer.eos_token_id)
        texts.append(first_line(encoder.decode(tokens)))
    return requests[["name", "row"]].assign(answer=[*texts[:-1], "another"])


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_the_check_decodes_in_a_worker(models, monkeypatch):
    requests = make_requests(3)
    answers = answered(requests, models)
    monkeypatch.setattr(adapters, "load_base", refuse)
    assert check_answers(requests, answers, models, 2, CONFIG) == {"base": GreedyCheck(2, 2)}
    assert check_answers(requests, answers, models, 9, CONFIG) == {"base": GreedyCheck(3, 2)}
    assert check_answers(requests, answers.head(0), models, 9, CONFIG) == {
        "base": GreedyCheck(0, 0)
    }


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_a_check_that_fails_leaves_its_error_not_an_agreement(models, tmp_path):
    requests = make_requests(2)
    answers = answered(requests, models)
    broken = LanguageModels(tmp_path, models.adapters, POLICY, models.encoder)
    check = check_answers(requests, answers, broken, 2, CONFIG)["base"]
    assert (check.rows, check.same) == (0, 0)
    assert check.error and str(tmp_path) in check.error


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_weights_are_merged_in_a_worker(models, tmp_path, monkeypatch):
    policy = adapters.load_policy(POLICY, models.folder, seed=0)
    adapters.save_adapter(policy, tmp_path / "adapter")
    monkeypatch.setattr(adapters, "load_base", refuse)
    merged = merge_on_cluster(models, tmp_path / "adapter", ScorerConfig())
    assert (merged / "config.json").exists() and merged != models.folder
    assert merge_on_cluster(models, None, ScorerConfig()) == models.folder


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus_per_engine": 1, "cpus_per_engine": 4}, (4, 1)),
        ({"gpus_per_engine": 0.25, "cpus_per_engine": 1}, (1, 0.25)),
        ({"gpus_per_engine": 0.5, "cpus_per_engine": 1, "tensor_parallel": 3}, (3, 2)),
        ({"gpus_per_engine": 1, "cpus_per_engine": 2, "tensor_parallel": 2}, (4, 2)),
        # No machine has four GPUs: the engine spreads over two of them, the task cannot.
        ({"gpus_per_engine": 1, "cpus_per_engine": 2, "tensor_parallel": 4}, (2, 1)),
    ],
)
def test_the_check_asks_for_what_an_engine_had(settings, expected):
    nodes = [{"CPU": 0.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}]
    resources = engine_resources(EngineConfig(**settings), nodes)
    assert (resources["num_cpus"], resources["num_gpus"]) == expected


def test_a_models_own_defaults_do_not_change_greedy_decoding(models):
    model, encoder = load_base(POLICY, models.folder).eval(), models.encoder
    prompt = encoder.prompt([0], [0, 1, 2])
    expected = greedy_answer(model, prompt, 12, encoder.tokenizer.eos_token_id)
    assert len(set(expected)) < len(expected)  # it repeats a token
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    assert greedy_answer(model, prompt, 12, encoder.tokenizer.eos_token_id) == expected

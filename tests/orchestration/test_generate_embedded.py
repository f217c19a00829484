"""Answers to prompts with vector hints are those of the policy's own decoding."""

import numpy as np
import pandas as pd
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import EngineConfig, PolicyConfig, ScorerConfig
from raypo.data.hints import UserHints
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.evaluation.answer_parsing import match_exactly
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.greedy_check import check_greedy
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.progress import no_progress
from raypo.policy import pack_responses, response_logps
from raypo.policy.adapters import AdapterScorer
from raypo.policy.projector import new_projector, save_projector
from tests.orchestration.test_generate import POLICY, TITLES, make_requests, strong_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("shared_ray_of_module"),
    pytest.mark.filterwarnings("ignore"),
]
FEATURES = 3


class ItemHints:
    """Vectors that tell items apart."""

    sentence, marker = "", "before"

    def __call__(self, histories, candidates, folds=None, hidden=None):
        table = np.random.default_rng(1).normal(size=(len(TITLES), FEATURES)).astype(np.float32)
        return [
            UserHints(None, None, table[list(history)], table[list(items)])
            for history, items in zip(histories, candidates, strict=True)
        ]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two adapters, the first with a projector, and the base model."""
    from raypo.orchestration.cluster import connect

    connect()
    model_folder = resolve_model("tiny-random")
    adapters = {"base": None}
    for seed, name in enumerate(("one", "two")):
        adapters[name] = tmp_path_factory.mktemp("adapters") / name
        model = strong_adapter(adapters[name], model_folder, seed)
        projector = new_projector(model.get_base_model(), FEATURES, seed)
        with torch.no_grad():
            projector.outer.weight *= 20  # vectors that change every answer
        save_projector(adapters[name], projector.state_dict())
    tokenizer = load_tokenizer(model_folder)
    encoder = Encoder(tokenizer, load_template(None), TITLES, hints=ItemHints())
    return LanguageModels(model_folder, adapters, POLICY, encoder)


def test_engines_answer_as_the_policy_decodes_with_its_projector(served, tmp_path) -> None:
    """A prompt that is too long for them is an error of its row alone."""
    from raypo.orchestration.inference.generate import generate

    requests = make_requests(served.names)
    histories = requests[["history", "candidates"]].values
    longest = max(len(served.encoder.prompt(*user)) for user in histories)
    too_long = requests.iloc[[0]].assign(row=3, history=[list(range(8)) * 20])
    asked = pd.concat([requests, too_long], ignore_index=True)
    batches = [
        RequestBatch(mode, asked, AnswerStore(tmp_path / f"{mode}.jsonl"))
        for mode in ("generate", "constrained")
    ]
    config = EngineConfig(batch_size=4, max_new_tokens=6, max_model_len=longest + 10)
    generate(batches, served, config, no_progress)
    frames = {batch.mode: batch.store.frame() for batch in batches}
    assert all(set(batch.errors) == {(too_long["name"].item(), 3)} for batch in batches)
    assert all(len(frame) == len(requests) for frame in frames.values())
    answers = requests.merge(frames["generate"][["name", "row", "answer"]])
    assert answers.groupby("row")["answer"].nunique().min() == 3
    checks = check_greedy(answers, served, 6)
    assert {name: (check.rows, check.same) for name, check in checks.items()} == {
        name: (3, 3) for name in served.names
    }
    chosen = frames["constrained"].set_index(["name", "row"])["answer"]
    for row in requests.itertuples():
        titles = [TITLES[item] for item in row.candidates]
        assert match_exactly(chosen[row.name, row.row], titles) is not None


def test_the_scorer_ranks_with_each_models_own_projector(served, tmp_path) -> None:
    from raypo.orchestration.inference.score import score

    requests = make_requests(served.names, rows=4)
    batch = RequestBatch("likelihood", requests, AnswerStore(tmp_path / "likelihood.jsonl"))
    score(batch, served, ScorerConfig(workers=1), no_progress)
    scores = batch.store.frame().set_index(["name", "row"])["logps"]
    policy = AdapterScorer(served.policy, served.folder, served.adapters)
    for row in requests.itertuples():
        users = served.encoder.encode([row.history], [row.candidates])
        projector = policy.projector(row.name)
        markers = users.markers if projector is not None else None
        packed = pack_responses(users.prompts, users.responses, 0, markers=markers)
        with policy.using(row.name) as model:
            expected = response_logps(model, packed, projector).sums[0]
        assert np.allclose(scores[row.name, row.row], expected.detach().numpy(), atol=1e-4)


def test_an_engine_that_reads_embeddings_otherwise_is_refused(served, monkeypatch) -> None:
    from raypo.evaluation import vllm_embedded

    plain = vllm_embedded.PromptEmbeddings.__call__
    monkeypatch.setattr(vllm_embedded.PromptEmbeddings, "__call__", lambda *call: plain(*call) * -3)
    with pytest.raises(RuntimeError, match="reads embeddings of this model's tokens otherwise"):
        vllm_embedded.EmbeddedAnswers(
            served.folder, PolicyConfig(dtype="float32"), {"base": None}, 0, max_model_len=256
        )

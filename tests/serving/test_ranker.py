"""Rankings are the scores that evaluation computes, however requests come together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.data.conditional_logit import standardised
from raypo.data.dataset import load_dataset
from raypo.data.tokenisation import make_encoder
from raypo.errors import InputError
from raypo.policy.adapters import AdapterScorer
from raypo.policy.scoring import score_responses
from raypo.recommenders.heuristics import heuristic_scores
from raypo.recommenders.scoring import score_candidates
from raypo.recommenders.train import load_recommender
from raypo.serving.ranker import FUSED, RECOMMENDER, Question, Ranker
from raypo.serving.runs import Fusion, Served


@pytest.fixture(scope="module")
def rows(served: Served):
    return load_dataset(served.data).test.head(7)


def questions(rows, model: str) -> list[Question]:
    return [
        Question(model, tuple(map(int, row.history)), tuple(map(int, row.candidates)))
        for row in rows.itertuples()
    ]


def logps_of(served: Served, rows, adapter: Path | None) -> np.ndarray:
    """Log-probs [rows, candidates], one user at a time."""
    policy = PolicyConfig(model=served.model)
    folder = resolve_model(served.model)
    encoder = make_encoder(policy, folder, load_dataset(served.data).titles)
    users = encoder.encode(rows["history"], rows["candidates"])
    with AdapterScorer(policy, folder, {"one": adapter}).using("one") as model:
        scored = score_responses(
            model, users.prompts, users.responses, encoder.tokenizer.pad_token_id, 1
        )
    return scored.numpy()


def test_answers_are_the_log_probs_of_evaluation(ranker: Ranker, served: Served, rows) -> None:
    for name, adapter in served.adapters.items():
        expected = logps_of(served, rows, adapter)
        answers = ranker.rank(questions(rows, name))
        assert np.allclose([one.logps for one in answers], expected, rtol=0.02, atol=0.05)
        assert all(one.scores == one.logps for one in answers)
    recommender = load_recommender(served.recommender)
    found = [one.recommended for one in ranker.rank(questions(rows, RECOMMENDER))]
    assert np.allclose(found, score_candidates(recommender, rows), atol=1e-5)


def test_requests_of_several_models_and_sizes_are_answered_together(ranker: Ranker, rows) -> None:
    one = questions(rows, "base")
    mixed = [
        replace(question, model=model, candidates=question.candidates[: 3 + number])
        for number, question in enumerate(one)
        for model in ("base", "sft", RECOMMENDER)
    ]
    together = ranker.rank(mixed)
    for question, answer in zip(mixed, together, strict=True):
        (alone,) = ranker.rank([question])
        assert answer.candidates == list(question.candidates)
        assert np.allclose(answer.scores, alone.scores, rtol=0.02, atol=0.05)
        assert answer.model == question.model


def test_the_recommender_retrieves_its_best_of_what_is_allowed(
    ranker: Ranker, served: Served
) -> None:
    history = (3, 4, 5)
    recommender = load_recommender(served.recommender)
    dataset = load_dataset(served.data)
    import pandas as pd

    everything = pd.DataFrame(
        {"history": [list(history)], "candidates": [list(range(dataset.num_items))]}
    )
    order = np.argsort(-score_candidates(recommender, everything)[0], kind="stable")
    allowed = np.arange(dataset.num_items) % 2 == 0
    expected = [int(item) for item in order if item % 2 == 0 and item not in (4, 8)][:6]
    question = Question("base", history, None, 6, (4, 8), allowed)
    assert ranker.retrieve(question) == expected
    with pytest.raises(InputError, match="leave no item"):
        ranker.retrieve(replace(question, allowed=np.zeros(dataset.num_items, dtype=bool)))


def test_a_fused_model_weighs_the_standardised_scores_of_its_parts(served: Served, rows) -> None:
    adapter = served.adapters["sft"]
    assert adapter is not None and served.recommender is not None
    fusion = Fusion(adapter, 0.5, {"item-knn": 1.0, "popularity": -0.25}, {served.recommender: 2.0})
    ranker = Ranker(replace(served, fusion=fusion))
    assert FUSED not in ranker.names  # its adapter is not loaded yet
    ranker.set_adapters(served.adapters)
    found = np.array([one.scores for one in ranker.rank(questions(rows, FUSED))])
    dataset = load_dataset(served.data)
    expected = 0.5 * standardised(logps_of(served, rows, adapter))
    expected += 1.0 * standardised(heuristic_scores("item-knn", dataset, rows))
    expected += -0.25 * standardised(heuristic_scores("popularity", dataset, rows))
    expected += 2.0 * standardised(score_candidates(load_recommender(served.recommender), rows))
    assert np.allclose(found, expected, atol=0.05)


def test_one_bad_question_does_not_fail_the_others(ranker: Ranker, rows) -> None:
    good = questions(rows, "base")[:2]
    answers = ranker.rank_all([good[0], replace(good[1], model="absent")])
    assert not isinstance(answers[0], str)
    assert answers[1] == "model 'absent': known are base, sft, recommender"


def test_a_broken_adapter_is_refused_while_the_old_one_goes_on(
    served: Served, rows, tmp_path: Path
) -> None:
    ranker = Ranker(served)
    ranker.set_adapters(served.adapters)
    (before,) = ranker.rank(questions(rows, "sft")[:1])
    refused = ranker.set_adapters({**served.adapters, "sft": tmp_path, "new": tmp_path / "none"})
    assert set(refused) == {"sft", "new"} and "adapter_config.json is missing" in refused["sft"]
    assert ranker.names == ["base", "sft", RECOMMENDER]
    (after,) = ranker.rank(questions(rows, "sft")[:1])
    assert after.scores == before.scores
    assert ranker.set_adapters({"renamed": served.adapters["sft"]}) == {}
    assert ranker.names == ["renamed", RECOMMENDER]
    assert ranker.set_adapters({FUSED: served.adapters["sft"]}).keys() == {FUSED}

"""Requests, their answers as predictions, and what is recorded of them."""

import numpy as np
import pandas as pd
import pytest

from raypo.evaluation.answer_parsing import AnswerParser, ModeAnswers
from raypo.evaluation.candidate_permutations import permutation
from raypo.evaluation.cost import InferenceCost, count_cut_prompts
from raypo.evaluation.greedy_check import GreedyCheck, first_line
from raypo.evaluation.models import Baseline
from raypo.evaluation.record import EvaluationRecord, InferenceRecord, candidates_hash
from raypo.evaluation.requests import RequestOptions, make_requests

TITLES = ["Alien", "Heat", "Amélie", "Alien 3"]
SEED = 3


def rows(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(10, 10 + n),
            "user_id": range(n),
            "history": [[0, 1]] * n,
            "target": [2] * n,
            "candidates": [[2, 3, 1]] * n,
        }
    )


def test_each_mode_has_its_rows_and_permutations_for_every_model():
    options = RequestOptions(("generate", "likelihood"), 2, 1, SEED)
    requests = make_requests(rows(), ["one", "two"], options)
    assert list(requests) == ["generate", "likelihood"]
    generated, ranked = requests["generate"], requests["likelihood"]
    assert generated[["name", "row", "permutation"]].values.tolist() == [
        ["one", 10, 0],
        ["one", 11, 0],
        ["two", 10, 0],
        ["two", 11, 0],
    ]
    assert len(ranked) == 2 * 3 * 2
    assert sorted(ranked["permutation"]) == [0] * 6 + [1] * 6
    for request in ranked.itertuples():
        expected = np.array([2, 3, 1])[permutation(request.row, request.permutation, 3, SEED)]
        assert list(request.candidates) == expected.tolist()


def test_answers_and_errors_become_predictions_of_their_own_model():
    generated = pd.DataFrame(
        [
            {"name": "one", "row": 10, "permutation": 0, "answer": "Amélie", "tokens": 2},
            {"name": "one", "row": 11, "permutation": 0, "answer": "see Heat", "tokens": 2},
            {"name": "two", "row": 10, "permutation": 0, "answer": "Alien 3", "tokens": 2},
        ]
    )
    answers = {"generate": ModeAnswers(generated, {("one", 12): "engine died"})}
    predictions = AnswerParser(rows(), TITLES, SEED).predictions(answers, ["one", "two"])
    one, two = predictions["one"], predictions["two"]
    assert one["answer"].tolist()[:2] == ["Amélie", "see Heat"] and pd.isna(one["answer"][2])
    assert one["answer_item"].tolist()[:2] == [2, 1]
    assert one["exact_item"].isna().tolist() == [False, True, True]
    assert one["error"].isna().tolist() == [True, True, False]
    assert one["error"][2] == "engine died"
    assert two["answer_item"].tolist()[0] == 3  # Alien itself is not a candidate
    assert two["answer"].isna().tolist() == [False, True, True]
    assert two["error"].isna().all()


def test_each_mode_keeps_its_own_errors():
    texts = pd.DataFrame({"name": "one", "row": [10, 11, 12], "permutation": 0, "answer": "Heat"})
    answers = {
        "generate": ModeAnswers(texts),
        "constrained": ModeAnswers(texts.head(2), {("one", 12): "engine died"}),
    }
    predictions = AnswerParser(rows(), TITLES, SEED).predictions(answers, ["one"])["one"]
    assert predictions["error"].isna().all()
    assert predictions["constrained_error"].isna().tolist() == [True, True, False]


class LetterEncoder:
    """A token for each item, with room for four."""

    def __init__(self, max_prompt_tokens):
        self.max_prompt_tokens = max_prompt_tokens
        self.cut_prompts = 7  # of earlier prompts

    def prompt(self, history, candidates):
        self.cut_prompts += len(history) + len(candidates) > self.max_prompt_tokens
        return []


def test_rows_with_a_cut_prompt_count_once_for_all_models_modes_and_permutations():
    frame = rows()
    frame["history"] = [[0], [0, 1], [0, 1]]
    options = RequestOptions(("generate", "likelihood"), 2, 3, SEED)
    requests = make_requests(frame, ["one", "two"], options)
    assert count_cut_prompts(requests, LetterEncoder(4)) == 2
    assert count_cut_prompts(requests, LetterEncoder(None)) == 0


def test_scores_of_permutations_return_to_the_order_of_the_candidates():
    options = RequestOptions(("likelihood",), None, 2, SEED)
    requests = make_requests(rows(), ["one"], options)["likelihood"]
    answers = requests.drop(columns=["history", "candidates"])
    answers["logps"] = [[-float(item) for item in items] for items in requests["candidates"]]
    answers["lengths"] = [[int(item) for item in items] for items in requests["candidates"]]
    shuffled = answers.sample(frac=1, random_state=0)
    parser = AnswerParser(rows(), TITLES, SEED)
    predictions = parser.predictions({"likelihood": ModeAnswers(shuffled)}, ["one"])["one"]
    for row in predictions.itertuples():
        assert list(row.logps) == [-2.0, -3.0, -1.0]
        assert list(row.lengths) == [2, 3, 1]
        assert row.permutation_logps == [[-2.0, -3.0, -1.0]] * 2


def test_a_baseline_answers_with_scores_that_have_no_lengths():
    baseline = Baseline(lambda frame: np.stack(frame["candidates"].to_list()))
    options = RequestOptions(("likelihood",), None, 0, SEED)
    answers = baseline.answers(make_requests(rows(), baseline.names, options)["likelihood"])
    parser = AnswerParser(rows(), TITLES, SEED)
    predictions = parser.predictions({"likelihood": ModeAnswers(answers)}, [""])[""]
    assert predictions["logps"].map(list).tolist() == [[2.0, 3.0, 1.0]] * 3
    assert predictions["lengths"].isna().all() and predictions["permutation_logps"].isna().all()


def test_a_record_has_the_keys_that_apply():
    cost = InferenceCost(1.5, 2, 1.333, 10.0, 0.0)
    inference = InferenceRecord({"generate": cost}, 4, {"one": GreedyCheck(2, 1)})
    known = {"dataset": "d", "rows": "r", "candidates": "c", "length_normalised": True}
    of_models = EvaluationRecord(**known, inference=inference)
    assert EvaluationRecord(**known, inference=None).as_json("") == known
    assert of_models.as_json("two") == known | {
        "cost": {
            "generate": {
                "seconds": 1.5,
                "answers": 2,
                "answers_per_second": 1.333,
                "prompt_tokens": 10.0,
                "answer_tokens": 0.0,
            }
        },
        "cut_prompts": 4,
    }
    assert of_models.as_json("one")["greedy_check"] == {"rows": 2, "same": 1}
    assert candidates_hash(rows(2)) != candidates_hash(rows(3))


@pytest.mark.parametrize(
    ("text", "line"), [("\n\n Heat \nmore", "Heat"), ("Heat", "Heat"), (" \n", "")]
)
def test_the_first_line_with_text_is_the_answer(text, line):
    assert first_line(text) == line

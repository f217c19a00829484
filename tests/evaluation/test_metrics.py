"""Metrics on tables worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.evaluation.answers import match_answer
from raypo.evaluation.intervals import bootstrap_interval
from raypo.evaluation.metrics import (
    hit_at,
    ndcg_at,
    popularity_bias,
    reciprocal_rank,
    summarise,
    target_ranks,
)
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.rules import popularity_scores, random_scores
from raypo.evaluation.table import markdown_table

POPULARITY = np.array([0, 1, 3, 7])


def rows(n: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(n),
            "user_id": range(n),
            "history": [[0, 1]] * n,
            "target": [2] * n,
            "candidates": [[2, 3, 1]] * n,
        }
    )


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (" Alien", 0),
        (" Alien 3", None),  # "Alien" is inside it: two titles are in the answer
        ("I would say Heat.", 2),
        ("alien", None),
        ("Heat or Alien", None),
        ("", None),
    ],
)
def test_an_answer_is_valid_if_exactly_one_title_is_in_it(answer, found):
    assert match_answer(answer, ["Alien", "Alien 3", "Heat"]) == found


def test_ranks_and_gains_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 5.0, 4.0]])
    above, ties = target_ranks(scores, np.array([0, 1, 0]))
    assert above.tolist() == [0, 0, 2]
    assert ties.tolist() == [0, 2, 0]
    assert hit_at(1, above, ties).tolist() == pytest.approx([1, 1 / 3, 0])
    assert reciprocal_rank(above, ties).tolist() == pytest.approx(
        [1, (1 + 1 / 2 + 1 / 3) / 3, 1 / 3]
    )
    tied = (1 + 1 / math.log2(3)) / 3
    assert ndcg_at(2, above, ties).tolist() == pytest.approx([1, tied, 0])


@given(st.integers(2, 30), st.integers(1, 10))
def test_a_model_that_scores_everything_alike_gets_chance(candidates, k):
    above, ties = target_ranks(np.zeros((5, candidates)), np.arange(5) % candidates)
    assert hit_at(k, above, ties).tolist() == pytest.approx([min(1, k / candidates)] * 5)


def test_popularity_bias_is_the_log_difference_to_the_history():
    bias = popularity_bias(np.array([3, 0]), [np.array([0, 1]), np.array([0])], POPULARITY)
    assert bias.tolist() == pytest.approx([math.log(8) - math.log(2) / 2, 0.0])


def test_summary_of_generated_answers_by_hand():
    predictions = empty_predictions(rows())
    predictions["answer"] = ["a", "b", "c", "d"]
    predictions["answer_item"] = pd.array([2, 3, None, None], dtype="Int64")
    summary = summarise(predictions, POPULARITY, resamples=500, seed=0)
    generate = summary["generate"]
    assert set(summary) == {"generate"}
    assert generate["n"] == 4
    assert generate["HitRatio@1"] == 0.25
    assert generate["HitRatio@1/valid"] == 0.5
    assert generate["ValidRatio"] == 0.5
    consumed = math.log(2) / 2
    expected = (math.log(4) + math.log(8)) / 2 - consumed
    assert generate["PopularityBias"] == pytest.approx(expected)
    low, high = generate["intervals"]["HitRatio@1"]
    assert low <= 0.25 <= high


def test_nothing_valid_has_no_value_rather_than_a_wrong_one():
    predictions = empty_predictions(rows())
    predictions["answer"] = "?"
    generate = summarise(predictions, POPULARITY, resamples=50, seed=0)["generate"]
    assert generate["HitRatio@1"] == 0
    assert generate["HitRatio@1/valid"] is None
    assert generate["intervals"]["PopularityBias"] is None
    assert "\N{EN DASH}" in markdown_table([("x", {"generate": generate})])


def test_a_failed_row_stays_in_the_denominator():
    predictions = empty_predictions(rows())
    predictions["answer"] = ["a", None, None, None]
    predictions["error"] = [None, "engine died", "engine died", "engine died"]
    predictions["answer_item"] = pd.array([2, None, None, None], dtype="Int64")
    generate = summarise(predictions, POPULARITY, resamples=50, seed=0)["generate"]
    assert (generate["HitRatio@1"], generate["ValidRatio"]) == (0.25, 0.25)


def test_rows_that_nobody_generated_for_are_not_counted():
    predictions = empty_predictions(rows())
    predictions["answer"] = ["a", "b", None, None]
    predictions["answer_item"] = pd.array([2, None, None, None], dtype="Int64")
    generate = summarise(predictions, POPULARITY, resamples=50, seed=0)["generate"]
    assert (generate["n"], generate["HitRatio@1"]) == (2, 0.5)


def test_summary_of_rankings_by_hand():
    predictions = empty_predictions(rows(2))
    predictions["logps"] = [[-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0]]
    likelihood = summarise(predictions, POPULARITY, resamples=50, seed=0)["likelihood"]
    assert likelihood["HitRatio@1"] == 0.5
    assert likelihood["HitRatio@5"] == 1
    assert likelihood["NDCG@5"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert likelihood["MRR"] == 0.75


def test_bootstrap_interval_is_near_the_normal_one_and_repeats():
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values, 4000, seed=1)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap_interval(values, 4000, seed=1) == (low, high)


def test_predictions_round_trip(tmp_path):
    predictions = empty_predictions(rows())
    predictions["answer"] = ["Amélie", None, "", "🎬"]
    predictions["answer_item"] = pd.array([2, None, 3, None], dtype="Int64")
    predictions["logps"] = [[0.5, -1.0, 2.0]] * 4
    write_predictions(tmp_path, predictions)
    read = read_predictions(tmp_path)
    assert read["answer"].iloc[0] == "Amélie"
    assert read["answer"].isna().tolist() == [False, True, False, False]
    assert read["answer_item"].isna().tolist() == [False, True, False, True]
    assert read["logps"].iloc[3].tolist() == [0.5, -1.0, 2.0]


def test_rules_score_the_candidates():
    frame = rows(3)
    assert popularity_scores(frame, POPULARITY).tolist() == [[3.0, 7.0, 1.0]] * 3
    assert random_scores(frame, 1).shape == (3, 3)
    assert np.array_equal(random_scores(frame, 1), random_scores(frame, 1))

"""Metrics on tables worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.errors import InputError
from raypo.evaluation.answer_parsing import match_answer, match_exactly
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.calibration import calibrate
from raypo.evaluation.candidate_permutations import unpermute, with_permutations
from raypo.evaluation.catalogue_metrics import coverage, gini_index, jackknife_interval, tail_items
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.metrics import hit_at, ndcg_at, popularity_bias, reciprocal_rank, target_ranks
from raypo.evaluation.position_bias import position_bias, position_remark
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.ranking import ranking_scores, recommended, row_hits
from raypo.evaluation.report.table import markdown_table
from raypo.evaluation.significance import compare
from raypo.evaluation.summary import MetricOptions, summarise
from raypo.recommenders.heuristics import popularity_scores, random_scores

POPULARITY = np.array([0, 1, 3, 7])


def options(num_bootstrap: int = 50, **others: bool) -> MetricOptions:
    return MetricOptions(Resampling(num_bootstrap, seed=0), **others)


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
    summary = summarise(predictions, POPULARITY, options(500))
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
    generate = summarise(predictions, POPULARITY, options(50))["generate"]
    assert generate["HitRatio@1"] == 0
    assert generate["HitRatio@1/valid"] is None
    assert generate["intervals"]["PopularityBias"] is None
    assert "\N{EN DASH}" in markdown_table([("x", {"generate": generate})])


def test_a_failed_row_stays_in_the_denominator():
    predictions = empty_predictions(rows())
    predictions["answer"] = ["a", None, None, None]
    predictions["error"] = [None, "engine died", "engine died", "engine died"]
    predictions["answer_item"] = pd.array([2, None, None, None], dtype="Int64")
    generate = summarise(predictions, POPULARITY, options(50))["generate"]
    assert (generate["HitRatio@1"], generate["ValidRatio"]) == (0.25, 0.25)


def test_rows_without_a_request_are_not_counted():
    predictions = empty_predictions(rows())
    predictions["answer"] = ["a", "b", None, None]
    predictions["answer_item"] = pd.array([2, None, None, None], dtype="Int64")
    generate = summarise(predictions, POPULARITY, options(50))["generate"]
    assert (generate["n"], generate["HitRatio@1"]) == (2, 0.5)


def test_summary_of_rankings_by_hand():
    predictions = empty_predictions(rows(2))
    predictions["logps"] = [[-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0]]
    likelihood = summarise(predictions, POPULARITY, options(50))["likelihood"]
    assert likelihood["HitRatio@1"] == 0.5
    assert likelihood["HitRatio@5"] == 1
    assert likelihood["NDCG@5"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert likelihood["MRR"] == 0.75


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


def test_heuristic_baselines_score_the_candidates():
    frame = rows(3)
    assert popularity_scores(frame, POPULARITY).tolist() == [[3.0, 7.0, 1.0]] * 3
    assert random_scores(frame, 1).shape == (3, 3)
    assert np.array_equal(random_scores(frame, 1), random_scores(frame, 1))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Alien 3", 1),
        (' "alien 3." ', 1),
        ("ALIEN", 0),
        ("Heat!", 4),
        ("heat!", None),  # normalised it is both titles
        ("I would say Fin.", None),  # more than the title
        ("\N{LATIN SMALL LIGATURE FI}n", 3),  # compatibility form
        ("", None),
        (".", None),
    ],
)
def test_exact_matching_takes_the_answer_that_is_a_title(answer, found):
    assert match_exactly(answer, ["Alien", "Alien 3", "Heat", "Fin", "Heat!"]) == found


def test_a_title_of_punctuation_alone_can_be_matched():
    assert match_exactly("!!!", ["!!!", "Heat"]) == 0


@given(st.integers(0, 10**6))
def test_rankings_agree_with_sorting_row_by_row(seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(20, 12))
    targets = generator.integers(12, size=20)
    places = [
        sorted(range(12), key=lambda item: -row[item]).index(target) + 1
        for row, target in zip(scores, targets, strict=True)
    ]
    above, ties = target_ranks(scores, targets)
    for k in (5, 10):
        hits = [float(place <= k) for place in places]
        gains = [math.log(2) / math.log(place + 1) if place <= k else 0 for place in places]
        assert hit_at(k, above, ties).tolist() == pytest.approx(hits)
        assert ndcg_at(k, above, ties).tolist() == pytest.approx(gains)
    reciprocals = [1 / place for place in places]
    assert reciprocal_rank(above, ties).tolist() == pytest.approx(reciprocals)


def test_coverage_gini_and_tail_by_hand():
    counts = np.array([0, 1, 3, 0])
    assert coverage(counts) == 0.5
    # Mean absolute difference over twice the mean, of all ordered pairs.
    pairs = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini_index(counts) == pytest.approx(pairs / (2 * counts.mean()))
    assert gini_index(np.array([2, 2, 2])) == 0
    assert math.isnan(gini_index(np.zeros(3, dtype=int)))
    popularity = np.array(
        [0, 5, 1, 3, 2, 9, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    )
    assert np.flatnonzero(tail_items(popularity)).tolist() == [2, 4]  # 2 of the 20 seen


@given(st.lists(st.integers(0, 6), min_size=2, max_size=12))
def test_the_jackknife_leaves_each_recommendation_out_once(counts):
    counts = np.array(counts)
    n = counts.sum()
    if n < 2:
        assert jackknife_interval(coverage, counts) is None
        return
    left_out = []
    for item, count in enumerate(counts):
        for _ in range(count):
            without = counts.copy()
            without[item] -= 1
            left_out.append(gini_index(without))
    error = math.sqrt((n - 1) / n * ((left_out - np.mean(left_out)) ** 2).sum())
    low, high = jackknife_interval(gini_index, counts)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=1e-4, abs=1e-9)
    assert (high + low) / 2 == pytest.approx(gini_index(counts))


def test_calibration_by_hand():
    sure = [math.log(0.8), math.log(0.1), math.log(0.1)]
    unsure = [math.log(0.5), math.log(0.25), math.log(0.25)]
    scores = np.array([sure, sure, unsure, unsure]) - 7  # a constant changes nothing
    found = calibrate(scores, np.array([0, 0, 0, 1]))
    assert np.allclose(found.bins, [(0.5, 0.5, 2), (0.8, 1.0, 2)])
    assert found.error == pytest.approx(0.1)


def test_values_of_permuted_candidates_return_to_the_order_of_the_data_set():
    frame = rows(3)
    permuted = with_permutations(frame, 2, seed=5)
    assert sorted(permuted["permutation"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for row in permuted.itertuples():
        values = np.asarray(row.candidates) * 10.0
        assert unpermute(values, row.row, row.permutation, 5).tolist() == [20.0, 30.0, 10.0]
    pd.testing.assert_frame_equal(permuted, with_permutations(frame, 2, seed=5))


def test_summary_of_normalisation_permutations_and_breakdowns():
    predictions = empty_predictions(rows(2))
    predictions["history"] = [[0, 1], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]]
    predictions["logps"] = [[-4.0, -3.0, -9.0], [-2.0, -1.0, -3.0]]
    predictions["lengths"] = [[4, 1, 3], [1, 1, 1]]
    predictions["permutation_logps"] = [[[-4.0, -3.0, -9.0]] * 2, [[-1.0, -2.0, -3.0]] * 2]
    plain = summarise(predictions, POPULARITY, options(calibrated=True))["likelihood"]
    normalised = summarise(predictions, POPULARITY, options(length_normalised=True))["likelihood"]
    assert (plain["HitRatio@1"], normalised["HitRatio@1"]) == (0.0, 0.5)
    assert plain["permutations"]["HitRatio@1"] == [0.5, 0.5]
    assert plain["permutations"]["same first"] == 0.5
    assert "CalibrationError" in plain and "CalibrationError" not in normalised
    assert [part["group"] for part in plain["breakdowns"]["history length"]] == [
        "1 to 3",
        "10 and more",
    ]
    assert plain["breakdowns"]["target in training"][0]["group"] == "1 to 5"
    assert plain["Coverage"] == 0.25
    low, high = plain["intervals"]["Coverage"]
    assert low <= 0.25 <= high


def test_position_bias_is_the_place_of_the_first_candidate_less_the_targets():
    chosen = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]], bool)
    assert position_bias(chosen, np.array([0, 0, 4, 3])).tolist() == [0, 2, -1, -0.5]
    assert position_bias(np.ones((2, 1), bool), np.array([0, 0])).tolist() == [0, 0]


@pytest.mark.parametrize("late", [True, False])
def test_a_model_that_ranks_by_places_is_told(late):
    frame = rows(40).assign(candidates=[[2, 3, 1], [1, 2, 3]] * 20)
    predictions = empty_predictions(frame)
    places = np.arange(3.0) if late else -np.arange(3.0)
    predictions["logps"] = [list(places)] * 40
    found = summarise(predictions, POPULARITY, options())["likelihood"]
    quarters = found["breakdowns"]["place of the target"]
    assert [(part["group"], part["n"]) for part in quarters] == [("first quarter", 20), ("2nd", 20)]
    remark = position_remark(found["PositionBias"], *found["intervals"]["PositionBias"])
    assert ("stand late" if late else "stand early") in remark


def test_places_that_say_nothing_are_not_remarked():
    assert position_remark(0.12, 0.05, 0.2) == position_remark(-0.12, -0.2, -0.05) == ""
    assert "PositionBias -0.40 [-0.50, -0.30]" in position_remark(-0.4, -0.5, -0.3)


def test_summary_of_constrained_answers():
    predictions = empty_predictions(rows())
    predictions["constrained"] = ["a", "b", "c", "d"]
    predictions["constrained_item"] = pd.array([2, 3, 1, 2], dtype="Int64")
    constrained = summarise(predictions, POPULARITY, options())["constrained"]
    assert constrained["HitRatio@1"] == 0.5
    assert constrained["ValidRatio"] == 1
    assert constrained["AveragePopularity"] == pytest.approx((3 + 7 + 1 + 3) / 4)


def test_answers_are_stored_once_and_an_incomplete_line_is_dropped(tmp_path):
    requests = pd.DataFrame(
        {"name": ["a", "a", "b"], "row": [0, 1, 0], "permutation": 0, "history": [[1]] * 3}
    )
    store = AnswerStore(tmp_path / "x.jsonl")
    store.add({"name": "a", "row": 1, "permutation": 0, "answer": "Amélie"})
    store.add({"name": "a", "row": 1, "permutation": 0, "answer": "again"})
    store.close()
    with (tmp_path / "x.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "b", "row": 0, "perm')
    again = AnswerStore(tmp_path / "x.jsonl")
    assert again.missing(requests)[["name", "row"]].values.tolist() == [["a", 0], ["b", 0]]
    again.add({"name": "b", "row": 0, "permutation": 0, "answer": "x"})
    again.close()
    last = AnswerStore(tmp_path / "x.jsonl")
    assert last.frame()["answer"].tolist() == ["Amélie", "x"]
    last.close()


def test_a_failed_constrained_row_stays_in_the_denominator():
    predictions = empty_predictions(rows())
    predictions["constrained"] = ["a", "b", "c", None]
    predictions["constrained_item"] = pd.array([2, 2, 2, None], dtype="Int64")
    predictions["constrained_error"] = [None, None, None, "engine died"]
    summary = summarise(predictions, POPULARITY, options())
    assert set(summary) == {"constrained"}  # nothing was generated freely
    assert summary["constrained"]["HitRatio@1"] == 0.75
    assert summary["constrained"]["ValidRatio"] == 0.75


def test_metrics_hits_and_tests_rank_by_the_same_scores():
    predictions = empty_predictions(rows(8))
    # By log-prob the target is second in every row; per token it is first in all rows but two.
    predictions["logps"] = [[-4.0, -3.0, -9.0]] * 8
    predictions["lengths"] = [[4, 1, 3]] * 6 + [[1, 1, 1]] * 2
    for length_normalised, ratio in ((False, 0.0), (True, 0.75)):
        summary = summarise(predictions, POPULARITY, options(length_normalised=length_normalised))
        hits = row_hits(predictions, "likelihood", length_normalised)
        first = recommended(predictions, "likelihood", length_normalised)
        scores = ranking_scores(predictions, length_normalised)
        assert summary["likelihood"]["HitRatio@1"] == hits.mean() == (first == 2).mean() == ratio
        assert (scores.argmax(axis=1) == 0).mean() == ratio
    # A baseline whose scores have no lengths ranks by them as they are.
    baseline = empty_predictions(rows(8))
    baseline["logps"] = [[-4.0, -3.0, -9.0]] * 8
    without = row_hits(baseline, "likelihood", length_normalised=True)
    compared = compare([hits], without, 200, 0)[0]
    assert (compared.difference, compared.only_first, compared.only_second) == (0.75, 6, 0)
    assert compared.p_value == pytest.approx(2 / 2**6)


def test_predictions_of_an_earlier_version_are_read(tmp_path):
    predictions = empty_predictions(rows())
    predictions["logps"] = [[0.5, -1.0, 2.0]] * 4
    predictions["permutation_logps"] = [[[0.5, -1.0, 2.0]] * 2] * 4
    write_predictions(tmp_path, predictions)
    file = tmp_path / "predictions.parquet"
    earlier = pd.read_parquet(file).rename(columns={"permutation_logps": "order_logps"})
    earlier = earlier.drop(columns="constrained_error")
    earlier["constrained"] = ["a", "b", "c", None]
    earlier["error"] = [None, None, "engine died", "engine died"]
    earlier.to_parquet(file)
    read = read_predictions(tmp_path)
    assert "order_logps" not in read
    assert read["constrained_error"].isna().tolist() == [True, True, True, False]
    assert [list(one) for one in read["permutation_logps"].iloc[3]] == [[0.5, -1.0, 2.0]] * 2


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_scores_that_are_no_numbers_are_an_error_not_a_hit(wrong, position):
    predictions = empty_predictions(rows(2))
    scores = [-1.0, -2.0, -3.0]
    scores[position] = wrong
    predictions["logps"] = [[-1.0, -2.0, -3.0], scores]
    with pytest.raises(InputError, match=f"row 1: the score of candidate {position} is .*finite"):
        summarise(predictions, POPULARITY, options())
    predictions["permutation_logps"] = predictions["logps"].map(lambda one: [one])
    predictions["logps"] = [[-1.0, -2.0, -3.0]] * 2
    with pytest.raises(InputError, match="row 1"):
        summarise(predictions, POPULARITY, options())

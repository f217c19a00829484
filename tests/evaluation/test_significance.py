"""Intervals and significance tests, over rows and over users."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from raypo.evaluation.intervals import bootstrap_interval
from raypo.evaluation.predictions import empty_predictions
from raypo.evaluation.significance import compare, holm, mcnemar_exact
from raypo.evaluation.summary import summarise
from tests.evaluation.test_metrics import POPULARITY, options, rows


def test_bootstrap_interval_is_near_the_normal_one_and_repeats():
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values, 4000, seed=1)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap_interval(values, 4000, seed=1) == (low, high)


def test_intervals_draw_users_with_all_their_rows():
    generator = np.random.default_rng(0)
    one_each = generator.random(200)
    copies, users = np.repeat(one_each, 5), np.repeat(np.arange(200), 5)
    expected = bootstrap_interval(one_each, 500, seed=1)
    assert bootstrap_interval(copies, 500, seed=1, users=users) == pytest.approx(expected)
    assert bootstrap_interval(one_each, 500, seed=1, users=np.arange(200)) == expected
    low, high = bootstrap_interval(copies, 500, seed=1)
    assert high - low < (expected[1] - expected[0]) / 2  # five copies are not five times the users
    predictions = empty_predictions(rows(8)).assign(user_id=[0] * 4 + [1] * 4)
    predictions["logps"] = [[-1.0, -2.0, -3.0]] * 4 + [[-2.0, -1.0, -3.0]] * 4
    likelihood = summarise(predictions, POPULARITY, options())["likelihood"]
    assert likelihood["intervals"]["HitRatio@1"] == [0, 1]  # one of two users
    assert (
        compare([np.repeat([1.0, 0], 4)], np.zeros(8), 50, 0, predictions["user_id"])[0].high == 1
    )


def test_mcnemar_and_holm_by_hand():
    first = np.array([True] * 9 + [False] + [True] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5)
    # 9 of 10 discordant rows: 2 (C(10, 0) + C(10, 1)) / 2^10.
    assert mcnemar_exact(first, second) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_exact(first, first) == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(st.integers(0, 10**6))
def test_mcnemar_swaps_the_models_of_a_user_in_all_rows(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 24)) < [[0.7], [0.4]]
    users = generator.integers(8, size=24)
    own = np.array([(first.astype(int) - second)[users == user].sum() for user in range(8)])
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    expected = (np.abs(signs @ own) >= abs(own.sum())).mean()
    assert mcnemar_exact(first, second, users) == pytest.approx(expected)
    discordant = int((first ^ second).sum())
    sign_test = binomtest(int((first & ~second).sum()), discordant).pvalue if discordant else 1
    assert mcnemar_exact(first, second) == pytest.approx(sign_test)
    assert mcnemar_exact(first, second, np.arange(24)) == pytest.approx(sign_test)


def test_one_users_rows_are_not_evidence_of_many_users():
    users = np.zeros(50, dtype=int)
    compared = compare([np.ones(50)], np.zeros(50), 100, 0, users)[0]
    assert compared.only_first == 50 and compared.p_value == 1 and not compared.significant


def test_a_comparison_pairs_rows():
    generator = np.random.default_rng(0)
    baseline = (generator.random(500) < 0.5).astype(float)
    better = np.maximum(baseline, generator.random(500) < 0.2)
    unrelated = generator.permutation(baseline)
    found = compare([better, unrelated], baseline, 2000, 0)
    assert found[0].low > 0 and found[0].significant
    assert found[0].difference == pytest.approx(better.mean() - baseline.mean())
    assert found[0].only_second == 0
    assert found[1].low < 0 < found[1].high and not found[1].significant
    # Paired: the interval is that of the differences, far narrower than of two samples.
    error = (better - baseline).std(ddof=1) / math.sqrt(500)
    assert found[0].high - found[0].low == pytest.approx(2 * 1.96 * error, rel=0.1)

"""What a language model adds: differences, their tests, and the words for them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from raypo.data.conditional_logit import fit_conditional_logit, standardised
from raypo.evaluation.fusion.added import (
    Rows,
    by_slice,
    compare_metric,
    compare_scores,
    likelihood_gain,
    row_slices,
    sentence,
)
from raypo.evaluation.intervals import Resampling

RESAMPLING = Resampling(500, 0)


def test_a_metrics_difference_is_tested_by_signs_of_users() -> None:
    own = np.array([0.9, 0.5, 0.3, 0.8, 0.7, 0.2])
    other = np.array([0.4, 0.6, 0.1, 0.8, 0.1, 0.2])
    users = np.array([1, 1, 2, 2, 3, 4])
    found = compare_metric(own, other, users, RESAMPLING)
    summed = np.array([0.4, 0.2, 0.6, 0.0])
    signs = np.array(list(product([-1, 1], repeat=4)))
    exact = (np.abs(signs @ summed) >= abs(summed.sum()) - 1e-12).mean()
    assert found.p_value == pytest.approx(exact, abs=1e-9)
    assert found.difference == pytest.approx((own - other).mean())
    assert found.low <= found.difference <= found.high
    centred = (own - other) - (own - other).mean()
    sums = np.array([centred[:2].sum(), centred[2:4].sum(), centred[4], centred[5]])
    assert found.smallest_detectable == pytest.approx(2.8 * np.sqrt((sums**2).sum()) / 6)


@pytest.mark.parametrize("other", [[0.5, 0.2, 0.1], [0.4, 0.2, 0.1]])
def test_one_user_or_none_that_differs_proves_nothing(other) -> None:
    own, users = np.array([0.5, 0.2, 0.1]), np.array([1, 2, 3])
    found = compare_metric(own, np.array(other), users, RESAMPLING)
    assert found.p_value == 1.0
    assert found.difference == pytest.approx((own - other).mean())


def simulated(strength: float, count=1500, seed=0):
    """A recommender, and a model that knows more by `strength`."""
    generator = np.random.default_rng(seed)
    known, further = (standardised(generator.normal(size=(count, 10))) for _ in range(2))
    targets = (known + strength * further + generator.gumbel(size=known.shape)).argmax(axis=1)
    scores = {"recommender": known, "llm": further}
    return Rows(scores, targets, generator.integers(300, size=count))


def test_what_a_model_knows_is_seen_in_the_likelihood_and_what_it_does_not_is_not() -> None:
    gain = likelihood_gain(simulated(0.5), ["recommender", "llm"], ["recommender"])
    assert gain["nats_per_row"] > 3 * gain["standard_error"]
    assert gain["p_value"] < 1e-6 and gain["degrees_of_freedom"] == 1
    nothing = likelihood_gain(simulated(0.0), ["recommender", "llm"], ["recommender"])
    assert abs(nothing["nats_per_row"]) < 3 * nothing["standard_error"] + 1e-3
    assert nothing["p_value"] > 0.01


def test_new_items_have_weights_of_their_own() -> None:
    rows = simulated(0.0)
    generator = np.random.default_rng(1)
    new = generator.random(rows.scores["llm"].shape) < 0.5
    # Of new items the recommender knows nothing and the other model something; they are rarer.
    utility = np.where(new, 2 * rows.scores["llm"] - 1, rows.scores["recommender"])
    targets = (utility + generator.gumbel(size=new.shape)).argmax(axis=1)
    rows = replace(rows, targets=targets, new=new)
    names = ["recommender", "llm"]
    fit = fit_conditional_logit(rows.features(names), rows.targets, rows.users)
    weights = dict(zip(rows.feature_names(names), fit.weights, strict=True))
    expected = {
        "recommender": 1.0, "recommender, new items": 0.0,
        "llm": 0.0, "llm, new items": 2.0, "new items": -1.0,
    }  # fmt: skip
    assert weights == pytest.approx(expected, abs=0.25)
    assert (np.abs(fit.weights - list(expected.values())) < 4 * fit.errors).all()
    gain = likelihood_gain(rows, names, ["recommender"])
    assert gain["degrees_of_freedom"] == 2 and gain["p_value"] < 1e-6


def test_slices_have_their_own_differences_and_small_ones_none() -> None:
    rows = simulated(0.5)
    own = rows.scores["recommender"] + rows.scores["llm"]
    chosen = np.arange(1500) < 700
    slices = {"some": chosen, "few": np.arange(1500) < 5}
    found = by_slice(own, rows.scores["recommender"], rows, slices, RESAMPLING)
    part = Rows({}, rows.targets[chosen], rows.users[chosen])
    expected = compare_scores(own[chosen], rows.scores["recommender"][chosen], part, RESAMPLING)
    assert found["some"] == {"n": 700, "added": expected}
    assert found["few"] == {"n": 5, "added": None}


def test_slices_are_by_what_training_saw_and_by_history() -> None:
    slices = row_slices(np.array([0, 1, 2, 3]), np.array([0, 5, 20, 21]), np.array([5, 6, 1, 9]))
    assert {name: chosen.tolist() for name, chosen in slices.items()} == {
        "all rows": [True, True, True, True],
        "targets never seen in training": [True, False, False, False],
        "targets seen at most 5 times": [True, True, False, False],
        "targets seen at most 20 times": [True, True, True, False],
        "histories of at most 5 items": [True, False, True, False],
    }


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "it adds to the best that was made without it"),
        (-0.05, -0.01, "it makes the best without it worse"),
        (
            -0.01,
            0.03,
            "nothing that these rows could show (a difference of 0.042 would likely have been "
            "seen)",
        ),
    ],
)
def test_the_sentence_claims_what_the_interval_shows(low, high, words) -> None:
    hits = {
        "value": 0.56, "other": 0.57, "difference": -0.01, "low": low, "high": high,
        "p_value": 0.4, "smallest_detectable": 0.042,
    }  # fmt: skip
    said = sentence("NAPO", {"HitRatio@1": hits})
    assert said.startswith("Fused with NAPO: HitRatio@1 0.560 against 0.570 without it, -0.010 [")
    assert said.endswith(f"{words}.")

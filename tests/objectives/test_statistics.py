"""Moving statistics: used first, updated after; frozen in evaluation; kept by a state dict."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.objectives import build_objective
from raypo.objectives.moments import local_moments, merge_moments
from tests.objectives.cases import batch_of, make_case
from tests.objectives.reference import alpha_dpo, beta_dpo, napo, napo_with_instance_margin

MOVING = ["napo", "dynamic-napo", "alpha-dpo", "beta-dpo", "napo-1", "napo-2"]


def test_napos_margin_uses_the_baseline_before_its_update():
    objective = build_objective("napo", momentum=0.9)
    first, second = make_case(6), make_case(7)
    one, two = {}, {}
    napo(first, one)
    assert objective(batch_of(first)).metrics["gamma"] == pytest.approx(1.0)
    assert objective.confidence_baseline == pytest.approx(one["confidence"])
    expected = napo(second, two, baseline=one["confidence"])
    out = objective(batch_of(second))
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    assert out.metrics["gamma"] == pytest.approx(two["gamma"], rel=1e-6)
    assert out.metrics["confidence_baseline"] == pytest.approx(one["confidence"], rel=1e-6)
    after = 0.9 * one["confidence"] + 0.1 * two["confidence"]
    assert objective.confidence_baseline == pytest.approx(after, rel=1e-6)


def test_alpha_dpo_standardises_by_what_it_saw_before():
    objective = build_objective("alpha-dpo", alpha=0.5)
    first, second, third = make_case(1), make_case(2), make_case(3)
    one, two = {}, {}
    alpha_dpo(first, one, alpha=0.5)
    objective(batch_of(first))
    expected = alpha_dpo(second, two, alpha=0.5, mean=one["mean"], std=one["std"])
    assert objective(batch_of(second)).loss.item() == pytest.approx(expected, rel=1e-5)
    mean = 0.9 * one["mean"] + 0.1 * two["mean"]
    std = 0.9 * one["std"] + 0.1 * two["std"]
    expected = alpha_dpo(third, {}, alpha=0.5, mean=mean, std=std)
    assert objective(batch_of(third)).loss.item() == pytest.approx(expected, rel=1e-5)


def test_napo_2_keeps_the_averages_of_both_margins():
    objective = build_objective("napo-2", instance_alpha=0.5)
    first, second = make_case(1), make_case(2)
    one = {}
    napo_with_instance_margin(first, one, instance_alpha=0.5, mean_of_both=True)
    objective(batch_of(first))
    assert objective.statistics == pytest.approx(
        {
            "confidence_baseline": one["confidence"],
            "margin_mean": one["mean"],
            "margin_std": one["std"],
        }
    )
    expected = napo_with_instance_margin(
        second, {}, instance_alpha=0.5, mean_of_both=True,
        baseline=one["confidence"], mean=one["mean"], std=one["std"],
    )  # fmt: skip
    assert objective(batch_of(second)).loss.item() == pytest.approx(expected, rel=1e-5)


def test_beta_dpo_follows_the_reward_margins_and_stays_positive():
    objective = build_objective("beta-dpo", alpha=5.0)
    first, second = make_case(1), make_case(2)
    one = {}
    beta_dpo(first, one, alpha=5.0)
    objective(batch_of(first))
    expected = beta_dpo(second, {}, alpha=5.0, baseline=one["mean"])
    assert objective(batch_of(second)).loss.item() == pytest.approx(expected, rel=1e-5)
    worse = make_case(3)
    worse.chosen -= 1000
    assert objective(batch_of(worse)).metrics["beta"] == pytest.approx(1e-3)


@pytest.mark.parametrize("name", MOVING)
def test_evaluation_leaves_statistics_and_state_round_trips(name):
    objective = build_objective(name)
    objective(batch_of(make_case(6)))
    kept = objective.state_dict()
    assert kept
    objective.eval()
    objective(batch_of(make_case(7)))
    assert objective.state_dict() == kept
    other = build_objective(name)
    other.load_state_dict(kept)
    assert other(batch_of(make_case(8))).metrics == objective(batch_of(make_case(8))).metrics


@pytest.mark.parametrize("name", MOVING)
def test_batches_of_one_step_move_the_statistics_once_and_together(name):
    options = {"rho": 0.0} if "napo" in name else {}
    objective, whole = build_objective(name, **options), build_objective(name, **options)
    for seeds in ((6, 7), (8, 9)):
        before = objective.state_dict()
        with objective.one_step():
            for seed in seeds:
                objective(batch_of(make_case(seed)))
                assert objective.state_dict() == before
        both = [batch_of(make_case(seed)) for seed in seeds]
        whole(joined(*both))
        assert objective.state_dict() == pytest.approx(whole.state_dict(), rel=1e-6)


def joined(one, other):
    """Two batches of the same users as one."""
    columns = {
        f.name: torch.cat([getattr(one, f.name), getattr(other, f.name)])
        for f in fields(one)
        if isinstance(getattr(one, f.name), torch.Tensor)
    }

    def item_scores(embeddings, items):
        half = len(embeddings) // 2
        return torch.cat(
            [
                one.item_scores(embeddings[:half], items[:half]),
                other.item_scores(embeddings[half:], items[half:]),
            ]
        )

    return replace(one, **columns, item_scores=item_scores)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e4, 1e4), max_size=6), min_size=1, max_size=4),
)
def test_merged_moments_are_those_of_the_union(parts):
    moments = []
    for part in parts:
        values = torch.tensor([part], dtype=torch.float64)
        moments.append(local_moments(values, torch.ones_like(values, dtype=torch.bool)))
    merged = merge_moments(torch.stack(moments))
    union = np.array([value for part in parts for value in part])
    assert merged.count == len(union)
    if len(union):
        assert merged.mean == pytest.approx(union.mean(), rel=1e-9, abs=1e-9)
        assert merged.std == pytest.approx(union.std(), rel=1e-6, abs=1e-6)

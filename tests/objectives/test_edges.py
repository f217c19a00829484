"""Extreme inputs give finite losses and gradients, with a documented meaning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.objectives import PreferenceBatch, available_objectives, build_objective
from raypo.objectives.aggregation import AGGREGATIONS
from raypo.objectives.sharing_memory import device_memory, require_memory
from tests.objectives.cases import Case, batch_of, make_case
from tests.objectives.reference import napo, negative_sets

PREFERENCE = [name for name in available_objectives() if name != "sft"]


def extreme(case: Case, kind: str) -> Case:
    """A case bent to an edge."""
    if kind == "tiny":
        case.rejected[:] = -1e4
        case.chosen[1:] = -1e4
    elif kind == "violating":
        case.rejected[:] = case.chosen[:, None] + 5
    elif kind == "identical":
        case.rejected[:] = -7.0
    elif kind == "ties":
        case.rejected[:] = case.chosen[:, None]
        case.reference_rejected[:] = case.reference_chosen[:, None]
    elif kind == "as the reference":
        case.reference_rejected[:], case.reference_chosen[:] = case.rejected, case.chosen
    elif kind == "far from the reference":
        case.reference_rejected[:], case.reference_chosen[:] = -1e4, 0.0
    elif kind == "same user":
        case.embeddings[:] = 1.0
    elif kind == "all collide":
        case.rejected_items[:] = 5
        case.chosen_items[:] = 5
    return case


@pytest.mark.parametrize("name", PREFERENCE)
@pytest.mark.parametrize(
    "kind",
    ["tiny", "violating", "identical", "ties", "as the reference", "far from the reference",
     "same user", "all collide"],
)  # fmt: skip
@pytest.mark.parametrize(("b", "n"), [(1, 1), (1, 4), (5, 1), (5, 4)])
def test_loss_and_gradients_are_finite(name, kind, b, n):
    objective = build_objective(name)
    for seed in range(2):  # with moving statistics fresh, and then taken from the first
        batch = batch_of(extreme(make_case(seed, b=b, n=n), kind))
        out = objective(batch)
        out.loss.backward()
        assert torch.isfinite(out.loss)
        assert torch.isfinite(batch.chosen_logps.grad).all()
        assert torch.isfinite(batch.rejected_logps.grad).all()
        assert all(math.isfinite(value) for value in out.metrics.values())


@pytest.mark.parametrize("name", ["napo", "s-dpo+ns", "dynamic-napo"])
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_no_sharing_and_sharing_with_everyone(name, rho):
    case = make_case(3)
    metrics = build_objective(name, rho=rho)(batch_of(case)).metrics
    sizes = [len(members) for members in negative_sets(case, rho)]
    assert metrics["negatives"] == pytest.approx(np.mean(sizes))
    if rho == 0:
        assert metrics["negatives"] == case.rejected.shape[1]


@pytest.mark.parametrize("aggregate", AGGREGATIONS.values(), ids=AGGREGATIONS)
def test_a_user_without_a_valid_negative_adds_nothing(aggregate):
    reward_margins = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    selected = torch.tensor([[False, False], [True, False]])
    scores, weights = aggregate(reward_margins, selected, torch.tensor(0.5))
    assert weights[0].sum() == 0 and weights[1].sum() == 1
    (weights * torch.nn.functional.softplus(-scores)).sum().backward()
    assert reward_margins.grad[0].tolist() == [0.0, 0.0]
    assert reward_margins.grad[1, 1] == 0.0 and reward_margins.grad[1, 0] != 0.0


def test_one_user_alone_has_nobody_to_share_with():
    case = make_case(10, b=1)
    out = build_objective("napo", rho=1.0)(batch_of(case))
    assert out.metrics["negatives"] == 3
    assert out.loss.item() == pytest.approx(napo(case, {}), rel=1e-5)


def test_sets_that_cannot_fit_are_refused_with_a_rho_that_fits(monkeypatch):
    # 8 users share with 5 of 7 others: 3 (1 + 5) negatives each, of 64 bytes.
    batch = batch_of(make_case(0, b=8, n=3))
    monkeypatch.setattr("raypo.objectives.sharing.device_memory", lambda device: 8 * 12 * 64)
    with pytest.raises(ValueError, match=r"8 users 18 negatives.*Set rho to 0\.42 or less"):
        build_objective("napo", rho=0.75)(batch)
    assert build_objective("napo", rho=0.42)(batch).loss.isfinite()


def test_the_memory_that_sharing_needs_grows_with_a_rank_s_users():
    k = 45874  # of 65,536 users, with rho 0.7
    require_memory(64, 65_536, 3, 0.7, k, 1 << 30)
    with pytest.raises(ValueError, match=r"137,625 negatives; a step takes about 538 GiB"):
        require_memory(65_536, 65_536, 3, 0.7, k, 80 << 30)
    require_memory(65_536, 65_536, 3, 0.7, k, None)
    with pytest.raises(ValueError, match=r"GiB\. Spread the users"):
        require_memory(65_536, 65_536, 3, 0.7, k, 1 << 20)
    memory = device_memory(torch.device("cpu"))
    assert memory is None or memory > 1 << 28


def test_a_zero_denominator_gives_the_base_beta():
    case = extreme(make_case(4), "ties")
    metrics = build_objective("dynamicpo-dmpo", beta=0.7)(batch_of(case)).metrics
    assert metrics["beta"] == pytest.approx(0.7)


def test_a_zero_deviation_gives_the_fixed_margin():
    case = make_case(5)
    case.reference_chosen[:], case.reference_rejected[:] = case.chosen, case.rejected
    metrics = build_objective("alpha-dpo", gamma=0.8)(batch_of(case)).metrics
    assert metrics["margin_std"] == 0
    assert metrics["gamma"] == pytest.approx(0.8)


def test_betas_and_margins_carry_no_gradient():
    """The gradient is that of the reward margins alone: scaling by a fixed beta gives the same."""
    case = make_case(6, b=1, n=1)
    batch, again = batch_of(case), batch_of(case)
    out = build_objective("dynamicpo-dmpo")(batch)
    out.loss.backward()
    fixed = build_objective("dmpo", beta=out.metrics["beta"])(again)
    fixed.loss.backward()
    torch.testing.assert_close(batch.chosen_logps.grad, again.chosen_logps.grad)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(PREFERENCE),
    st.integers(0, 10**6),
    st.integers(1, 7),
    st.integers(1, 5),
)
def test_the_order_of_users_does_not_matter(name, seed, b, n):
    case = make_case(seed, b=b, n=n)
    order = np.random.default_rng(seed).permutation(b)
    shuffled = Case(**{field: value[order] for field, value in vars(case).items()})
    losses = [build_objective(name)(batch_of(each)).loss for each in (case, shuffled)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("s-dpo", "reference_chosen_logps"),
        ("simpo", "chosen_lengths"),
        ("alpha-dpo", "rejected_lengths"),
        ("alpha-dpo", "reference_rejected_logps"),
        ("mppo", "chosen_lengths"),
        ("rosepo", "chosen_items"),
        ("rosepo", "item_scores"),
        ("napo", "user_embeddings"),
        ("napo", "history_items"),
        ("napo", "item_scores"),
        ("sft", "chosen_lengths"),
    ],
)
def test_a_missing_input_is_named(name, missing):
    batch = batch_of(make_case(0), **{missing: None})
    with pytest.raises(ValueError, match=missing):
        build_objective(name)(batch)


def test_half_precision_inputs_are_computed_in_float32():
    batch = batch_of(make_case(11), requires_grad=False)
    half = PreferenceBatch(
        batch.chosen_logps.bfloat16(),
        batch.rejected_logps.bfloat16(),
        chosen_lengths=batch.chosen_lengths,
        rejected_lengths=batch.rejected_lengths,
    )
    for name in ("sims-dpo", "simpo", "mppo", "sft"):
        assert build_objective(name)(half).loss.dtype == torch.float32

"""Values and gradients against an independent float64 implementation, and the promised edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.objectives import PreferenceBatch, available_objectives, build_objective
from tests.objectives.reference import Case, make_case, napo, negative_sets, s_dpo


def batch_of(case: Case, rows: slice = slice(None), requires_grad: bool = True) -> PreferenceBatch:
    def tensor(values, kind=torch.float32):
        return torch.tensor(values[rows], dtype=kind)

    table = torch.tensor(case.scores, dtype=torch.float32)
    users = torch.tensor(case.embeddings, dtype=torch.float32)

    def item_scores(embeddings, items):
        # The recommender stands for a table: find whose embedding this is.
        own = (embeddings[:, None] == users[None]).all(-1).int().argmax(1)
        return table[own[:, None], items]

    return PreferenceBatch(
        chosen_logps=tensor(case.chosen).requires_grad_(requires_grad),
        rejected_logps=tensor(case.rejected).requires_grad_(requires_grad),
        chosen_lengths=tensor(case.chosen_lengths, torch.long),
        rejected_lengths=tensor(case.rejected_lengths, torch.long),
        reference_chosen_logps=tensor(case.reference_chosen),
        reference_rejected_logps=tensor(case.reference_rejected),
        user_embeddings=tensor(case.embeddings),
        chosen_items=tensor(case.chosen_items, torch.long),
        rejected_items=tensor(case.rejected_items, torch.long),
        history_items=tensor(case.history, torch.long),
        item_scores=item_scores,
    )


def numeric_gradient(loss_of, case: Case, field: str) -> np.ndarray:
    values = getattr(case, field)
    gradient = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        kept = values[index]
        values[index] = kept + 1e-6
        above = loss_of(case)
        values[index] = kept - 1e-6
        gradient[index] = (above - loss_of(case)) / 2e-6
        values[index] = kept
    return gradient


NAPO_ABLATIONS = [
    ({}, {}),
    ({"rho": 0.0}, {"rho": 0.0}),
    ({"rho": 1.0}, {"rho": 1.0}),
    ({"dynamic_margin": False}, {"dynamic": False}),
    ({"length_normalised": True, "beta": 2.0}, {"normalised": True, "beta": 2.0}),
    ({"mask_collisions": False}, {"mask": False}),
    ({"similarity": "cosine"}, {"cosine": True}),
    ({"gamma": 0.5, "alpha": 2.0}, {"gamma": 0.5, "alpha": 2.0}),
]


@pytest.mark.parametrize(("options", "reference"), NAPO_ABLATIONS)
def test_napo_and_its_ablations_equal_the_formulas(options, reference):
    case = make_case(1)
    batch = batch_of(case)
    out = build_objective("napo", **options)(batch)
    expected = napo(case, **reference)
    assert out.loss.item() == pytest.approx(expected.loss, rel=1e-5)
    assert out.metrics["gamma"] == pytest.approx(expected.gamma, rel=1e-6)
    assert out.metrics["negatives"] == pytest.approx(np.mean(expected.sizes))
    out.loss.backward()
    for field, tensor in (("chosen", batch.chosen_logps), ("rejected", batch.rejected_logps)):
        wanted = numeric_gradient(lambda c: napo(c, **reference).loss, case, field)
        np.testing.assert_allclose(tensor.grad.numpy(), wanted, atol=2e-6)


def test_s_dpo_equals_the_formula():
    case = make_case(2)
    batch = batch_of(case)
    out = build_objective("s-dpo", beta=0.7)(batch)
    assert out.loss.item() == pytest.approx(s_dpo(case, 0.7), rel=1e-5)
    out.loss.backward()
    wanted = numeric_gradient(lambda c: s_dpo(c, 0.7), case, "rejected")
    np.testing.assert_allclose(batch.rejected_logps.grad.numpy(), wanted, atol=2e-6)


def test_sims_dpo_is_napo_without_sharing_and_margin():
    batch = batch_of(make_case(3))
    plain = build_objective("napo", rho=0.0, gamma=0.0, dynamic_margin=False)(batch).loss
    torch.testing.assert_close(build_objective("sims-dpo")(batch).loss, plain)


def test_sft_is_the_token_mean():
    case = make_case(4)
    out = build_objective("sft")(batch_of(case))
    expected = -case.chosen.sum() / case.chosen_lengths.sum()
    assert out.loss.item() == pytest.approx(expected, rel=1e-6)
    assert out.metrics["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "size"), [(3, 33), (19, 209)])
def test_the_papers_set_sizes(n, size):
    case = make_case(5, b=16, n=n, items=10**6)
    out = build_objective("napo", rho=0.7)(batch_of_unscored(case))
    assert out.metrics["negatives"] == size


def batch_of_unscored(case: Case) -> PreferenceBatch:
    batch = batch_of(case)
    return PreferenceBatch(
        **{
            name: getattr(batch, name)
            for name in batch.__dataclass_fields__
            if name != "item_scores"
        },
        item_scores=lambda users, items: torch.zeros(items.shape),
    )


def test_the_margin_follows_confidence_with_the_baseline_before_its_update():
    objective = build_objective("napo", momentum=0.9)
    first, second = make_case(6), make_case(7)
    one, two = napo(first), None
    assert objective(batch_of(first)).metrics["gamma"] == pytest.approx(1.0)
    assert objective.confidence_baseline == pytest.approx(one.confidence)
    two = napo(second, baseline=one.confidence)
    metrics = objective(batch_of(second)).metrics
    assert metrics["gamma"] == pytest.approx(two.gamma, rel=1e-6)
    assert metrics["confidence_baseline"] == pytest.approx(one.confidence, rel=1e-6)
    after = 0.9 * one.confidence + 0.1 * two.confidence
    assert objective.confidence_baseline == pytest.approx(after, rel=1e-6)


def test_evaluation_leaves_the_baseline_and_state_round_trips():
    objective = build_objective("napo")
    objective(batch_of(make_case(6)))
    kept = objective.state_dict()
    objective.eval()
    objective(batch_of(make_case(7)))
    assert objective.state_dict() == kept
    other = build_objective("napo")
    other.load_state_dict(kept)
    assert other(batch_of(make_case(8))).metrics == objective(batch_of(make_case(8))).metrics


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 5), st.floats(0, 1))
def test_the_order_of_users_does_not_matter(seed, b, n, rho):
    case = make_case(seed, b=b, n=n)
    order = np.random.default_rng(seed).permutation(b)
    shuffled = Case(**{name: value[order] for name, value in vars(case).items()})
    objective = lambda c: build_objective("napo", rho=rho)(batch_of(c)).loss  # noqa: E731
    torch.testing.assert_close(objective(case), objective(shuffled))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0, 1))
def test_masked_negatives_count_for_nothing(seed, b, rho):
    case = make_case(seed, b=b)
    sizes = [len(members) for members in negative_sets(case, rho, mask=True, cosine=False)]
    metrics = build_objective("napo", rho=rho)(batch_of(case)).metrics
    assert metrics["negatives"] == pytest.approx(np.mean(sizes))


def test_extreme_log_probs_stay_finite():
    case = make_case(9)
    case.rejected[0] = -1e4
    case.chosen[1] = -1e4
    batch = batch_of(case)
    loss = build_objective("napo")(batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(batch.chosen_logps.grad).all()
    assert torch.isfinite(batch.rejected_logps.grad).all()


def test_one_user_alone_has_nobody_to_share_with():
    case = make_case(10, b=1)
    out = build_objective("napo", rho=1.0)(batch_of(case))
    assert out.metrics["negatives"] == 3
    assert out.loss.item() == pytest.approx(napo(case).loss, rel=1e-5)


def test_a_user_without_a_valid_negative_adds_nothing_but_is_counted():
    from raypo.objectives.aggregation import softmax

    gaps = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    valid = torch.tensor([[False, False], [True, False]])
    scores, weights = softmax(gaps, valid, torch.tensor(0.0))
    assert weights.tolist() == [[0.0], [1.0]]
    (weights * torch.nn.functional.softplus(-scores)).sum().backward()
    assert gaps.grad[0].tolist() == [0.0, 0.0]
    assert gaps.grad[1, 1] == 0.0


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("s-dpo", "reference_chosen_logps"),
        ("napo", "user_embeddings"),
        ("napo", "history_items"),
        ("napo", "item_scores"),
        ("sft", "chosen_lengths"),
    ],
)
def test_a_missing_input_is_named(name, missing):
    batch = batch_of(make_case(0))
    fields = {key: getattr(batch, key) for key in batch.__dataclass_fields__}
    with pytest.raises(ValueError, match=missing):
        build_objective(name)(PreferenceBatch(**(fields | {missing: None})))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nappo", {}, "did you mean 'napo'"),
        ("napo", {"rhoo": 1}, "no option 'rhoo'"),
        ("napo", {"rho": 1.5}, "rho: expected a number from 0 to 1"),
        ("napo", {"beta": 0}, "beta: expected a number above 0"),
        ("napo", {"similarity": "dot"}, "expected one of inner, cosine"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_objective(name, **options)


def test_half_precision_inputs_are_computed_in_float32():
    case = make_case(11)
    batch = batch_of(case, requires_grad=False)
    half = PreferenceBatch(
        batch.chosen_logps.bfloat16(),
        batch.rejected_logps.bfloat16(),
        chosen_lengths=batch.chosen_lengths,
    )
    for name in ("sims-dpo", "sft"):
        assert build_objective(name)(half).loss.dtype == torch.float32
    assert set(available_objectives()) >= {"sft", "s-dpo", "sims-dpo", "napo"}

"""Every preset and ablation: values and gradients against independent float64 formulas."""

from functools import partial

import numpy as np
import pytest
import torch

from raypo.objectives import available_objectives, build_objective
from tests.objectives import reference as formulas
from tests.objectives.cases import batch_of, make_case
from tests.objectives.reference import numeric_gradient

DMPO = partial(formulas.dynamicpo, over="dmpo")
S_DPO = partial(formulas.dynamicpo, over="s-dpo")
MPPO = partial(formulas.dynamicpo, over="mppo")
NAPO_1 = formulas.napo_with_instance_margin
NAPO_2 = partial(NAPO_1, mean_of_both=True)

# (preset, its options, the formula, the formula's options)
COMPARED = [
    ("dpo", {}, formulas.dpo, {}),
    ("dpo", {"beta": 0.5}, formulas.dpo, {"beta": 0.5}),
    ("simpo", {}, formulas.simpo, {}),
    ("simpo", {"beta": 1.5, "gamma": 0.3}, formulas.simpo, {"beta": 1.5, "gamma": 0.3}),
    ("s-dpo", {}, formulas.s_dpo, {}),
    ("s-dpo", {"beta": 0.7}, formulas.s_dpo, {"beta": 0.7}),
    ("s-dpo+ns", {}, formulas.s_dpo_ns, {}),
    ("s-dpo+ns", {"rho": 1.0, "mask_collisions": False, "similarity": "cosine"},
     formulas.s_dpo_ns, {"rho": 1.0, "mask": False, "cosine": True}),
    ("sims-dpo", {}, formulas.sims_dpo, {}),
    ("sims-dpo", {"gamma": 0.4, "length_normalised": True},
     formulas.sims_dpo, {"gamma": 0.4, "normalised": True}),
    ("dmpo", {}, formulas.dmpo, {}),
    ("mppo", {}, formulas.mppo, {}),
    ("alpha-dpo", {}, formulas.alpha_dpo, {}),
    ("alpha-dpo", {"alpha": 0.7, "gamma": 0.2}, formulas.alpha_dpo, {"alpha": 0.7, "gamma": 0.2}),
    ("beta-dpo", {}, formulas.beta_dpo, {}),
    ("rosepo", {}, formulas.rosepo, {}),
    ("rosepo", {"eps_max": 0.2, "tau": 0.1, "beta": 1.0},
     formulas.rosepo, {"eps_max": 0.2, "tau": 0.1, "beta": 1.0}),
    # NAPO and its ablations (Table 3).
    ("napo", {}, formulas.napo, {}),
    ("napo", {"rho": 0.0}, formulas.napo, {"rho": 0.0}),
    ("napo", {"rho": 1.0}, formulas.napo, {"rho": 1.0}),
    ("napo", {"dynamic_margin": False}, formulas.napo, {"dynamic": False}),
    ("napo", {"length_normalised": True, "beta": 2.0},
     formulas.napo, {"normalised": True, "beta": 2.0}),
    ("napo", {"rho": 0.0, "dynamic_margin": False, "gamma": 0.0}, formulas.sims_dpo, {}),
    ("napo", {"mask_collisions": False}, formulas.napo, {"mask": False}),
    ("napo", {"similarity": "cosine"}, formulas.napo, {"cosine": True}),
    ("napo", {"gamma": 0.5, "alpha": 2.0, "confidence_start": 0.2},
     formulas.napo, {"gamma": 0.5, "alpha": 2.0, "baseline": 0.2}),
    ("napo-1", {}, NAPO_1, {}),
    ("napo-1", {"rho": 0.0, "gamma": 0.4, "alpha": 0.6}, NAPO_1,
     {"rho": 0.0, "gamma": 0.4, "instance_alpha": 0.6}),
    ("napo-2", {}, NAPO_2, {}),
    ("napo-2", {"rho": 0.4, "gamma": 0.7, "alpha": 2.0, "instance_alpha": 0.5,
                "confidence_start": 0.2},
     NAPO_2, {"rho": 0.4, "gamma": 0.7, "alpha": 2.0, "instance_alpha": 0.5, "baseline": 0.2}),
    ("dynamic-napo", {}, formulas.dynamic_napo, {}),
    ("dynamic-napo", {"dynamic_beta": False, "rho": 0.4},
     formulas.dynamic_napo, {"rho": 0.4, "dynamic": False}),
    ("dynamic-napo", {"boundary_alpha": 0.2, "boundary_gamma": 1.0, "gamma": 0.6},
     formulas.dynamic_napo,
     {"boundary_alpha": 0.2, "boundary_gamma": 1.0, "gamma": 0.6}),
    # DynamicPO, its ablations (Table 6) and the top-k baseline (Table 7).
    *[
        (f"dynamicpo-{name}", options, formula, expected)
        for name, formula in (("dmpo", DMPO), ("s-dpo", S_DPO), ("mppo", MPPO))
        for options, expected in (
            ({}, {}),
            ({"alpha": 0.9, "gamma": 1.0, "beta": 0.5}, {"alpha": 0.9, "gamma": 1.0, "beta": 0.5}),
            ({"selection": "clusters"}, {"stages": "clusters"}),
            ({"selection": "violations"}, {"stages": "violations"}),
            ({"selection": "all"}, {"stages": "all"}),
            ({"dynamic_beta": False}, {"dynamic": False}),
            ({"selection": "top-k", "top_k": 2}, {"stages": "top-2"}),
        )
    ],
]  # fmt: skip
NAMES = [f"{name}-{index}" for index, (name, *_) in enumerate(COMPARED)]


@pytest.mark.parametrize(("name", "options", "formula", "expected"), COMPARED, ids=NAMES)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_value_and_gradient_equal_the_formula(name, options, formula, expected, n):
    case = make_case(seed=n, b=6, n=n)
    case.rejected[0] = case.chosen[0] - 1 - np.arange(n)  # a user without violations
    batch = batch_of(case)
    out = build_objective(name, **options)(batch)
    kept: dict = {}
    value = formula(case=case, kept=kept, **expected)
    assert out.loss.item() == pytest.approx(value, rel=1e-5)
    assert out.metrics["loss"] == pytest.approx(value, rel=1e-5)
    for metric in ("gamma", "confidence"):
        if metric in kept:
            assert out.metrics[metric] == pytest.approx(kept[metric], rel=1e-6)
    out.loss.backward()
    for field, tensor in (("chosen", batch.chosen_logps), ("rejected", batch.rejected_logps)):
        wanted = numeric_gradient(lambda c: formula(case=c, kept=kept, **expected), case, field)
        assert np.abs(tensor.grad.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_every_preset_is_compared():
    assert {name for name, *_ in COMPARED} | {"sft"} == set(available_objectives())


def test_sft_is_the_token_mean():
    case = make_case(4)
    out = build_objective("sft")(batch_of(case))
    expected = -case.chosen.sum() / case.chosen_lengths.sum()
    assert out.loss.item() == pytest.approx(expected, rel=1e-6)
    assert out.metrics["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "size"), [(3, 33), (19, 209)])
def test_the_papers_set_sizes(n, size):
    case = make_case(5, b=16, n=n, items=10**6)
    batch = batch_of(case, item_scores=lambda users, items: torch.zeros(items.shape))
    assert build_objective("napo", rho=0.7)(batch).metrics["negatives"] == size


def test_with_one_negative_all_aggregations_are_dpo():
    batch = batch_of(make_case(12, n=1))
    losses = [
        build_objective(name, beta=0.3)(batch).loss.item() for name in ("dpo", "s-dpo", "dmpo")
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_rosepo_takes_another_oracle():
    batch = batch_of(make_case(13))
    never = build_objective("rosepo", oracle=lambda batch, items: torch.zeros(items.shape))(batch)
    assert never.loss.item() == pytest.approx(build_objective("dpo")(batch).loss.item())


@pytest.mark.parametrize("n", [3, 15])
def test_boundary_metrics_count_what_the_formulas_count(n):
    case = make_case(14, n=n)
    metrics = build_objective("dynamicpo-dmpo")(batch_of(case)).metrics
    kept: dict = {}
    DMPO(case=case, kept=kept)
    used = [beta for row in kept["betas"] for beta in row.values()]
    assert metrics["boundary_negatives"] == pytest.approx(len(used) / len(case.chosen))
    assert metrics["beta"] == pytest.approx(np.mean(used), rel=1e-6)
    at_boundary = (case.rejected >= case.chosen[:, None]).mean()
    assert metrics["boundary_ratio"] == pytest.approx(at_boundary)

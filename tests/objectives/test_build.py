"""Building objectives by name and from parts, and what is refused."""

import pytest
import torch

from raypo.config import AlignConfig, InputError, parse_config
from raypo.objectives import build_objective, compose_objective, composition
from raypo.training.job import make_objective
from tests.objectives.cases import batch_of, make_case

SAME = [
    ("dpo", {}, {"reward": "reference", "temperature": {"kind": "fixed", "beta": 0.1},
                 "aggregation": "pairwise"}),
    ("napo", {"rho": 0.5}, {"reward": "free", "negatives": {"kind": "shared", "rho": 0.5},
                            "aggregation": "softmax", "margin": "napo"}),
    ("dynamicpo-mppo", {}, {"reward": "likelihood", "selection": "boundary",
                            "temperature": "per-negative", "aggregation": "merged"}),
    ("alpha-dpo", {}, {"reward": "free-normalised", "aggregation": "pairwise",
                       "temperature": {"kind": "fixed", "beta": 2.0}, "margin": "alpha-dpo"}),
    ("rosepo", {}, {"reward": "reference", "temperature": {"kind": "fixed", "beta": 0.1},
                    "aggregation": "pairwise", "link": "smoothed"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "parts"), SAME)
def test_the_same_parts_make_the_same_objective(name, options, parts):
    batch = batch_of(make_case(1))
    named, composed = build_objective(name, **options), compose_objective(**parts)
    assert composition(named) == composition(composed)
    torch.testing.assert_close(named(batch).loss, composed(batch).loss)


def test_a_combination_that_no_paper_has_works():
    parts = {
        "reward": "reference",
        "negatives": "shared",
        "selection": {"kind": "top-k", "k": 2},
        "temperature": "per-batch",
        "aggregation": "softmax",
        "margin": {"kind": "alpha-dpo", "gamma": 0.2},
    }
    batch = batch_of(make_case(2))
    out = compose_objective(**parts)(batch)
    out.loss.backward()
    assert out.metrics["boundary_negatives"] == 2
    assert torch.isfinite(batch.rejected_logps.grad).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"reward": "fre", "aggregation": "softmax"}, "unknown reward 'fre'; did you mean 'free'"),
        ({"aggregation": "softmax"}, "reward: expected one of"),
        ({"reward": "free"}, "aggregation: expected one of pairwise, softmax, mean, merged"),
        ({"rewards": "free", "aggregation": "mean"}, "unknown part 'rewards'; did you mean"),
        ({"reward": "free", "aggregation": "mean", "margin": {"kind": "napo", "gama": 1}},
         "margin 'napo' has no option 'gama'; it has gamma, alpha, momentum, start"),
        ({"reward": "free", "aggregation": "mean", "margin": {"gamma": 1}},
         "margin: expected a kind"),
        ({"reward": "free", "aggregation": "mean", "negatives": {"kind": "own", "rho": 0.5}},
         "negatives 'own' has no option 'rho'"),
        ({"reward": "free", "aggregation": "mean", "negatives": {"kind": "shared", "rho": 2}},
         "rho: expected a number from 0 to 1"),
        ({"reward": "free", "aggregation": "softmax", "link": "smoothed"},
         "link 'smoothed'.*needs aggregation 'pairwise'"),
        ({"reward": "likelihood", "aggregation": "merged", "margin": "alpha-dpo"},
         "margin 'alpha-dpo' belongs to each pair"),
        ({"reward": "free", "aggregation": "mean", "temperature": "per-batch"},
         "reward 'free' has none"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        compose_objective(**parts)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nappo", {}, "did you mean 'napo'"),
        ("napo", {"rhoo": 1}, "no option 'rhoo'"),
        ("napo", {"rho": 1.5}, "rho: expected a number from 0 to 1"),
        ("napo", {"beta": 0}, "beta: expected a number above 0"),
        ("napo", {"gamma": "big"}, "gamma: expected a number"),
        ("napo", {"similarity": "dot"}, "expected one of inner, cosine"),
        ("napo", {"mask_collisions": "no"}, "mask_collisions: expected true or false"),
        ("napo", {"selection": "hard"}, "selection: expected one of all, boundary"),
        ("dmpo", {"selection": "top-k", "top_k": 0}, "top_k: expected a whole number above 0"),
        ("rosepo", {"eps_max": 0.5}, "eps_max: expected a number from 0 to below 0.5"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_objective(name, **options)


def align_config(objective, tmp_path):
    values = {
        "data": str(tmp_path),
        "output": str(tmp_path / "out"),
        "policy": {"model": "tiny-random", "adapter": str(tmp_path)},
        "objective": objective,
    }
    return parse_config(AlignConfig, values, "align.yaml")


def test_configuration_composes_or_names(tmp_path):
    composed = {"reward": "free", "aggregation": "softmax", "margin": {"kind": "napo", "alpha": 1}}
    objective = make_objective(align_config(composed, tmp_path))
    assert composition(objective)["margin"] == "napo" and objective.margin.alpha == 1
    named = make_objective(align_config({"name": "dmpo", "selection": "top-k"}, tmp_path))
    assert composition(named)["selection"] == "top-k"
    assert make_objective(align_config({}, tmp_path)).name == "napo"


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "napo", "reward": "free"}, "not both"),
        ({"reward": "free", "aggregation": "mean", "alpha": 1}, "alpha: in a composed objective"),
        ({"reward": "free", "aggregation": "meen"}, "objective: unknown aggregation 'meen'"),
        ({"name": "dmpo", "rho": 0.5}, "objective: objective 'dmpo' has no option 'rho'"),
    ],
)
def test_configuration_refuses_with_the_place(tmp_path, objective, message):
    with pytest.raises(InputError, match=message):
        make_objective(align_config(objective, tmp_path))

"""Building objectives by name and from parts, and what is refused."""

import pytest
import torch

from raypo.objectives import (
    available_objectives,
    build_objective,
    compose_objective,
    composition,
    parse_options,
    parse_parts,
    preset_options,
)
from raypo.objectives.margins import ConfidenceMargin
from raypo.objectives.selection import TopK
from raypo.objectives.sharing import Shared
from raypo.objectives.temperature import BetaPerNegative
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
         r"margin\.gama: margin 'napo' has no option 'gama'; did you mean 'gamma'\?"),
        ({"reward": "free", "aggregation": "mean", "margin": {"kind": "napo", "x": 1}},
         "margin 'napo' has no option 'x'; known: gamma, alpha, momentum, start"),
        ({"reward": "free", "aggregation": "mean", "margin": {"gamma": 1}},
         "margin: expected a kind"),
        ({"reward": "free", "aggregation": "mean", "negatives": {"kind": "own", "rho": 0.5}},
         "negatives 'own' has no option 'rho'"),
        ({"reward": "free", "aggregation": "mean", "negatives": {"kind": "shared", "rho": 2}},
         r"^negatives\.rho: expected a number from 0 to 1, got 2"),
        ({"reward": "free", "aggregation": "mean", "margin": {"kind": "none", "gamma": 1}},
         r"margin 'none' has no option 'gamma'; known: none"),
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
        ("napo", {"rhoo": 1}, "no option 'rhoo'; did you mean 'rho'"),
        ("dmpo", {"rho": 1}, "no option 'rho'; known: beta, selection, top_k$"),
        ("sft", {"beta": 1}, "no option 'beta'; known: none"),
        ("napo", {"rho": 1.5}, "rho: expected a number from 0 to 1"),
        ("napo", {"beta": 0}, "beta: expected a number above 0"),
        ("napo", {"beta": None}, "beta: expected a number above 0, got None"),
        ("napo", {"beta": float("inf")}, "beta: expected a number above 0, got inf"),
        ("dynamic-napo", {"boundary_alpha": "x"}, "boundary_alpha: expected a number, got 'x'"),
        ("napo", {"confidence_start": "x"}, "confidence_start: expected a number"),
        ("napo", {"gamma": "big"}, "gamma: expected a number"),
        ("napo", {"similarity": "dot"}, "expected one of inner, cosine"),
        ("napo", {"mask_collisions": "no"}, "mask_collisions: expected true or false"),
        ("napo", {"selection": "hard"}, "selection: expected one of all, boundary"),
        ("dmpo", {"selection": "top-k", "top_k": 0}, "top_k: expected a whole number above 0"),
        ("dmpo", {"selection": "top-k", "top_k": 2.5}, "top_k: expected a whole number above 0"),
        ("rosepo", {"eps_max": 0.5}, "eps_max: expected a number from 0 to below 0.5"),
        ("rosepo", {"tau": 0}, "tau: expected a number above 0"),
        ("rosepo", {"oracle": 1}, "oracle: expected a Python function"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_objective(name, **options)


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (Shared, {"rho": 1.5}, "rho: expected a number from 0 to 1, got 1.5"),
        (Shared, {"similarity": "dot"}, "similarity: expected one of inner, cosine, got 'dot'"),
        (ConfidenceMargin, {"momentum": -1}, "momentum: expected a number from 0 to 1, got -1"),
        (BetaPerNegative, {"beta": True}, "beta: expected a number above 0, got True"),
        (TopK, {"k": 0}, "k: expected a whole number above 0, got 0"),
    ],
)
def test_a_part_with_a_wrong_option_cannot_be_made(part, options, message):
    with pytest.raises(ValueError) as caught:
        part(**options)
    assert str(caught.value) == message


def test_values_become_those_of_the_options_type():
    options = {"rho": 0, "mask_collisions": 1, "confidence_start": None, "top_k": 4.0}
    parsed = parse_options("napo", options)
    assert parsed == options
    assert [type(value) for value in parsed.values()] == [float, bool, type(None), int]
    assert build_objective("dmpo", selection="top-k", top_k=4.0).selection == TopK(4)
    parts = {"reward": "free", "aggregation": "mean", "selection": {"kind": "top-k", "k": 4.0}}
    assert type(parse_parts(parts)["selection"]["k"]) is int
    assert parse_parts(parts) == parts


@pytest.mark.parametrize("name", available_objectives())
def test_a_presets_own_defaults_change_nothing(name):
    options = preset_options(name)
    assert build_objective(name, **options) == build_objective(name)

"""1, 2 and 4 gloo processes with parts of a batch give what one with the whole gives."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypo.objectives import available_objectives
from tests.objectives.gloo_ranks import GlooRanks, take_steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    processes = GlooRanks(tmp_path_factory.mktemp("gloo"))
    yield processes
    processes.close()


OPTIONS = {
    "napo": [{}, {"rho": 0.0}, {"rho": 1.0, "mask_collisions": False}, {"similarity": "cosine"}],
    "s-dpo+ns": [{}, {"rho": 0.3}],
    "dynamic-napo": [{}, {"selection": "clusters"}],
    "dynamicpo-dmpo": [{}, {"selection": "top-k", "top_k": 2}],
}
OBJECTIVES = [
    (name, options) for name in available_objectives() for options in OPTIONS.get(name, [{}])
]


@st.composite
def splits(draw):
    """Rows of 2 or 4 ranks, each with at least one user."""
    count = draw(st.sampled_from([2, 4]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    edges = [0, *itertools.accumulate(sizes)]
    return list(itertools.pairwise(edges))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    objective=st.sampled_from(OBJECTIVES),
    parts=splits(),
    n=st.integers(1, 5),
    seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=2),
)
def test_any_split_equals_one_process(ranks, objective, parts, n, seeds):
    check_equal(ranks, *objective, parts, n, seeds)


@pytest.mark.parametrize(("name", "options"), OBJECTIVES)
def test_unequal_ranks_equal_one_process(ranks, name, options):
    check_equal(ranks, name, options, [(0, 1), (1, 4), (4, 6), (6, 8)], 3, [0, 1])


def check_equal(ranks, name, options, parts, n, seeds):
    shape = {"b": parts[-1][1], "n": n}
    whole = take_steps(name, options, seeds, shape)
    results = ranks.run(name, options, seeds, shape, parts)
    for step, expected in enumerate(whole):
        per_rank = [result[step] for result in results]
        mean = sum(result["loss"] for result in per_rank) / len(parts)
        assert mean == pytest.approx(expected["loss"], rel=2e-6, abs=1e-9)
        for index, gradient in enumerate(expected["gradients"]):
            # The engine averages gradients over ranks; each log-prob is on one of them.
            joined = torch.cat([result["gradients"][index] for result in per_rank]) / len(parts)
            torch.testing.assert_close(joined, gradient, rtol=2e-5, atol=1e-7)
        for result in per_rank:
            assert result["metrics"] == pytest.approx(expected["metrics"], rel=1e-5, abs=1e-6)
            assert result["statistics"] == per_rank[0]["statistics"]  # to the bit
        assert per_rank[0]["statistics"] == pytest.approx(
            expected["statistics"], rel=1e-6, abs=1e-7
        )


def test_statistics_move_in_training_alone(ranks):
    parts, shape = [(0, 3), (3, 6)], {"b": 6, "n": 3}
    for name in ("napo", "alpha-dpo", "beta-dpo", "napo-2"):
        for result in ranks.run(name, {}, [0, 1, 2], shape, parts, training=False):
            statistics = [step["statistics"] for step in result]
            assert statistics[0] != statistics[1] == statistics[2]


# name: (gathers forward, reductions forward, gathers backward, reductions backward)
COLLECTIVES = {
    "sft": (0, 1, 0, 0),
    "s-dpo": (0, 1, 0, 0),
    "dynamicpo-s-dpo": (0, 1, 0, 0),
    "alpha-dpo": (1, 1, 0, 0),
    "beta-dpo": (1, 1, 0, 0),
    "s-dpo+ns": (2, 1, 0, 1),
    "napo": (2, 1, 0, 1),
    "dynamic-napo": (2, 1, 0, 1),
    "napo-1": (2, 1, 0, 1),
    "napo-2": (2, 1, 0, 1),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collectives_of_a_step_and_their_bytes(ranks, name):
    b, n, d = 3, 5, 4
    results = ranks.run(name, {}, [0, 1], {"b": 2 * b, "n": n}, [(0, b), (b, 2 * b)])
    step = results[0][1]
    forward, backward = step["forward"], step["backward"]
    counted = tuple(
        part.get(kind, 0) for part in (forward, backward) for kind in ("gathers", "reductions")
    )
    assert counted == COLLECTIVES[name]
    if name == "napo":
        # docs/objectives.md: 16 + b (4 d + 12 n), then 24 + 4 b n; backward 4 B n.
        assert forward["gathered_bytes"] == 16 + b * (4 * d + 12 * n) + 24 + 4 * b * n
        assert backward["reduced_bytes"] == 4 * 2 * b * n
    if name in ("alpha-dpo", "beta-dpo"):
        assert forward["gathered_bytes"] == 24


def test_only_a_wider_batch_repeats_the_gather_without_gradient(ranks):
    wide = [(0, 3), (3, 6)]
    results = ranks.run("napo", {}, [0, 1, 2], {"b": 6, "n": 3}, wide)
    gathers = [step["forward"]["gathers"] for step in results[0]]
    assert gathers == [3, 2, 2]


def test_how_far_the_gradient_reaches(ranks):
    parts, shape = [(0, 3), (3, 6)], {"b": 6, "n": 3}
    reach = {}
    for gradient in ("all", "local", "own"):
        options = {"rho": 1.0, "sharing_gradient": gradient}
        results = ranks.run("napo", options, [0], shape, parts)
        reach[gradient] = torch.cat([result[0]["gradients"][1] for result in results]) / 2
    own_only = take_steps("napo", {"rho": 1.0, "sharing_gradient": "own"}, [0], shape)
    torch.testing.assert_close(reach["own"], own_only[0]["gradients"][1], rtol=1e-5, atol=1e-7)
    # Every rejected log-prob is pushed down by all who share it: the further, the more.
    assert (reach["own"] <= reach["local"]).all() and (reach["own"] < reach["local"]).any()
    assert (reach["local"] <= reach["all"]).all() and (reach["local"] < reach["all"]).any()

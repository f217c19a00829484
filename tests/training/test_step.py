"""A step has one loss and one gradient, however it is cut into ranks and micro-batches."""

import pytest
import torch

from raypo.assets import tiny_random
from raypo.objectives import available_objectives
from tests.training.step_ranks import Cut, run_cuts

pytestmark = pytest.mark.slow

USERS = 7  # no number of ranks or micro-batches but 1 and 7 divides it
SIZES = {1: (7, 3, 1), 2: (4, 1), 3: (2, 1), 4: (2, 1)}  # ranks: users of a micro-batch
OPTIONS = {
    "napo": [
        {},
        {"confidence": "rank", "margin_scope": "negative"},
        {"sharing_gradient": "own", "rho": 0.4},
    ],
}
OBJECTIVES = [
    (name, options)
    for name in [*available_objectives(), "yes-no"]
    for options in OPTIONS.get(name, [{}])
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of all cuts, by (objective's position, ranks, micro-batch size)."""
    keys = [
        (index, world_size, size)
        for index in range(len(OBJECTIVES))
        for world_size, sizes in SIZES.items()
        for size in sizes
    ]
    cuts = [
        Cut(OBJECTIVES[index][0], USERS, size, world_size, options=OBJECTIVES[index][1])
        for index, world_size, size in keys
    ]
    return dict(
        zip(keys, run_cuts(cuts, tmp_path_factory.mktemp("ranks"), tiny_random()), strict=True)
    )


@pytest.mark.parametrize("index", range(len(OBJECTIVES)), ids=[str(one) for one in OBJECTIVES])
def test_every_cut_has_the_loss_gradient_and_statistics_of_one_batch(results, index):
    whole = results[index, 1, USERS][0]
    for (objective, world_size, size), ranks in results.items():
        if objective != index:
            continue
        for rank in ranks:
            for step, expected in zip(rank, whole, strict=True):
                what = f"{world_size} ranks, micro-batches of {size}"
                assert step["metrics"] == pytest.approx(expected["metrics"], rel=1e-6, abs=1e-6)
                assert step["statistics"] == pytest.approx(expected["statistics"], rel=1e-6), what
                difference = (step["gradient"] - expected["gradient"]).norm()
                # Rounding of float32: rows of other lengths are summed in other orders.
                assert difference <= 2e-6 * expected["gradient"].norm(), what


def test_statistics_move_once_a_step_with_any_sharing_scope():
    """Two global batches of a step share nothing, but R_0 moves once, by both together."""
    cut = Cut("napo", 4, 2, 1, global_batches=2, options={"rho": 0.0})
    first, second = run_cuts([cut], None, tiny_random())[0][0]
    baseline = first["statistics"]["confidence_baseline"]
    assert baseline == pytest.approx(first["metrics"]["confidence"], rel=1e-6)
    assert second["metrics"]["confidence_baseline"] == pytest.approx(baseline, rel=1e-6)
    after = 0.9 * baseline + 0.1 * second["metrics"]["confidence"]
    assert second["statistics"]["confidence_baseline"] == pytest.approx(after, rel=1e-6)


def test_the_scope_of_a_step_shares_among_all_of_its_users():
    def negatives(batch, batches):
        options = {"rho": 1.0, "mask_collisions": False}
        cut = Cut("napo", batch, 2, 1, global_batches=batches, options=options)
        return run_cuts([cut], None, tiny_random())[0][0][0]["metrics"]["negatives"]

    assert negatives(8, 1) == 2 * 8
    assert negatives(4, 2) == 2 * 4


def test_a_step_with_dropout_is_the_same_again():
    cut = Cut("napo", 6, 2, 1, dropout=0.5)
    first, again = run_cuts([cut, cut], None, tiny_random())
    without = run_cuts([Cut("napo", 6, 2, 1)], None, tiny_random())[0]
    for one, other, plain in zip(first[0], again[0], without[0], strict=True):
        assert torch.equal(one["gradient"], other["gradient"])
        assert one["metrics"] == other["metrics"]
        assert one["metrics"]["loss"] != plain["metrics"]["loss"]

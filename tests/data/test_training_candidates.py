from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.data.candidates import TrainingCandidates, sample_unseen
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError

TRAIN = pd.DataFrame(
    {
        "user_id": [0, 0, 1],
        "history": [np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([9])],
        "target": [3, 4, 8],
    }
)


def make(size: int = 5, num_items: int = 30, seed: int = 0) -> TrainingCandidates:
    return TrainingCandidates(TrainingRows.of_frame(TRAIN), num_items, size, seed)


def test_candidates_hold_target_and_unseen_items() -> None:
    candidates = make()
    for epoch in range(200):
        drawn = candidates.draw(0, epoch)
        assert len(drawn) == len(set(drawn)) == 5
        # 4 is this user's later training target: seen, so never a negative.
        assert set(drawn) & {0, 1, 2, 3, 4} == {3}
        assert max(drawn) < 30


def test_a_draw_is_a_function_of_seed_epoch_and_row() -> None:
    first, second = make(), make()
    expected = {(row, epoch): first.draw(row, epoch) for row in range(3) for epoch in range(3)}
    assert {key: second.draw(*key) for key in reversed(expected)} == expected
    assert len({tuple(drawn) for drawn in expected.values()}) == 9
    assert make(seed=1).draw(0, 0) != expected[0, 0]


def test_negatives_are_among_the_candidates() -> None:
    candidates = make(size=20)
    for epoch in range(20):
        negatives = candidates.negatives(0, epoch, 3)
        assert negatives == candidates.negatives(0, epoch, 3)
        assert len(set(negatives)) == 3
        assert set(negatives) < set(candidates.draw(0, epoch)) - {3}
    with pytest.raises(ValueError, match="20 negatives asked for, the candidates have 19"):
        candidates.negatives(0, 0, 20)


def test_negatives_stand_anywhere_in_the_list_that_the_prompt_shows() -> None:
    """Else a policy that learns from some of the candidates would learn to avoid their places."""
    candidates = make(size=10)
    places = Counter()
    for epoch in range(6000):
        listed = candidates.draw(0, epoch)
        places.update(listed.index(item) for item in candidates.negatives(0, epoch, 3))
    assert all(abs(places[place] - 1800) < 190 for place in range(10))  # 5 standard deviations


def test_fewer_negatives_are_the_first_of_more() -> None:
    candidates = make(size=20)
    for epoch in range(20):
        every = candidates.negatives(0, epoch, 19)
        assert set(every) == set(candidates.draw(0, epoch)) - {3}
        assert all(candidates.negatives(0, epoch, count) == every[:count] for count in range(19))


def test_target_position_and_negatives_are_uniform() -> None:
    candidates = make()
    draws = [candidates.draw(0, epoch) for epoch in range(5000)]
    positions = Counter(drawn.index(3) for drawn in draws)
    assert all(abs(positions[p] - 1000) < 150 for p in range(5))  # 5 standard deviations
    items = Counter(item for drawn in draws for item in drawn if item != 3)
    assert set(items) == set(range(5, 30))
    assert all(abs(count - 800) < 150 for count in items.values())


def test_too_few_unseen_items_are_refused_before_any_draw() -> None:
    assert set(make(size=6, num_items=10).draw(0, 0)) == {3, 5, 6, 7, 8, 9}
    with pytest.raises(InputError, match="user 0 has only 5 of 10"):
        make(size=7, num_items=10)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.integers(0, n))
    ),
    st.integers(0, 2**32),
)
def test_sample_is_distinct_and_unseen(case: tuple[int, set[int], int], seed: int) -> None:
    num_items, seen, count = case
    generator = np.random.default_rng(seed)
    if count > num_items - len(seen):
        with pytest.raises(ValueError, match="unseen items asked for"):
            sample_unseen(generator, seen, num_items, count)
        return
    sample = sample_unseen(generator, seen, num_items, count)
    assert len(set(sample)) == len(sample) == count
    assert not set(sample) & seen
    assert all(0 <= item < num_items and type(item) is int for item in sample)

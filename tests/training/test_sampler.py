"""The sampler: every user once an epoch, the same for any number of ranks, resumable."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.errors import InputError
from raypo.training.sampler import BatchSizes, make_batch_sampler


def make_sampler(num_rows=50, max_rows=None, seed=0, **sizes):
    defaults = {"micro_batch_size": 2, "gradient_accumulation_steps": 3, "world_size": 2}
    return make_batch_sampler(num_rows, max_rows, BatchSizes(**(defaults | sizes)), 2, seed)


def rows_of(sampler, step, rank):
    """All of a rank's rows of a step, in order."""
    batches = sampler.rank_batches(step, rank)[1]
    return [row for micro_batches in batches for rows in micro_batches for row in rows]


def visited_rows(sampler, epoch):
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    return [
        row
        for step in steps
        for rank in range(sampler.world_size)
        for row in rows_of(sampler, step, rank)
    ]


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(48, 90)
)
def test_an_epoch_visits_no_row_twice_and_all_but_a_remainder(
    micro_batch_size, gradient_accumulation_steps, world_size, seed, num_rows
):
    sampler = make_sampler(
        num_rows,
        seed=seed,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        world_size=world_size,
    )
    for epoch in range(2):
        rows = visited_rows(sampler, epoch)
        assert len(rows) == len(set(rows)) == num_rows - num_rows % sampler.users_per_step


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(["step", "micro_batch"]),
    st.data(),
)
def test_any_number_of_ranks_divides_the_same_global_batches(
    micro_batch_size, accumulation, world_size, scope, data
):
    active = data.draw(st.integers(1, world_size))
    sizes = {
        "micro_batch_size": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "world_size": world_size,
        "sharing_scope": scope,
    }
    planned, fewer = make_sampler(**sizes), make_sampler(**sizes, active_world_size=active)
    one = make_sampler(**sizes, active_world_size=1)
    assert fewer.users_per_step == micro_batch_size * accumulation * world_size
    assert fewer.global_batches == (1 if scope == "step" else accumulation)
    for step in range(planned.total_steps):
        whole = one.rank_batches(step, 0)[1]
        for sampler in (planned, fewer):
            ranks = [sampler.rank_batches(step, r)[1] for r in range(sampler.world_size)]
            for index, expected in enumerate(whole):
                joined = [row for rank in ranks for part in rank[index] for row in part]
                assert joined == list(chain(*expected))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.data())
def test_ranks_make_as_many_micro_batches_and_none_is_larger_than_was_asked(
    micro_batch_size, accumulation, world_size, data
):
    sampler = make_sampler(
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation,
        world_size=world_size,
        active_world_size=data.draw(st.integers(1, world_size)),
    )
    shares = [sampler.rank_batches(0, rank)[1] for rank in range(sampler.world_size)]
    assert {len(parts) for share in shares for parts in share} == {sampler.micro_batches}
    sizes = [len(rows) for share in shares for parts in share for rows in parts]
    assert max(sizes) <= micro_batch_size
    assert all(parts[0] for share in shares for parts in share)  # nobody is without a user
    users = [sum(map(len, parts)) for share in shares for parts in share]
    assert max(users) - min(users) <= 1


def test_epochs_differ_in_order_but_not_in_rows():
    sampler = make_sampler(num_rows=48)
    assert visited_rows(sampler, 0) != visited_rows(sampler, 1)
    assert sorted(visited_rows(sampler, 0)) == sorted(visited_rows(sampler, 1))


def test_too_few_rows_for_a_step_are_refused_with_the_arithmetic():
    with pytest.raises(
        InputError,
        match=r"5 training rows .*\(12 = micro_batch_size 2 x gradient_accumulation_steps 3",
    ):
        make_sampler(max_rows=5)

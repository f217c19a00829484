"""The sampler: every user once an epoch, the same for any number of ranks, resumable."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.config import InputError
from raypo.training.sampler import BatchSizes, make_batch_sampler


def make_sampler(num_rows=50, max_rows=None, seed=0, **sizes):
    defaults = {"micro_batch_size": 2, "gradient_accumulation_steps": 3, "world_size": 2}
    return make_batch_sampler(num_rows, max_rows, BatchSizes(**(defaults | sizes)), 2, seed)


def visited_rows(sampler, epoch):
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    return [
        row
        for step in steps
        for index in range(sampler.gradient_accumulation_steps)
        for rank in range(sampler.world_size)
        for row in sampler.micro_batch(step, index, rank)[1]
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


def test_ranks_divide_the_same_global_batch():
    one = make_sampler(micro_batch_size=4, world_size=1)
    two = make_sampler(micro_batch_size=2, world_size=2)
    for step in range(one.total_steps):
        whole = one.micro_batch(step, 0, 0)[1]
        assert whole == two.micro_batch(step, 0, 0)[1] + two.micro_batch(step, 0, 1)[1]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.data())
def test_fewer_active_ranks_share_the_same_users(
    micro_batch_size, gradient_accumulation_steps, world_size, data
):
    active = data.draw(st.integers(1, world_size))
    sizes = {
        "micro_batch_size": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "world_size": world_size,
    }
    all_ranks, fewer = make_sampler(**sizes), make_sampler(**sizes, active_world_size=active)
    assert fewer.users_per_step == all_ranks.users_per_step
    for step in range(all_ranks.total_steps):
        for index in range(gradient_accumulation_steps):
            shares = [fewer.micro_batch(step, index, rank)[1] for rank in range(active)]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert max(map(len, shares)) == fewer.users_per_rank
            planned = [all_ranks.micro_batch(step, index, rank)[1] for rank in range(world_size)]
            assert list(chain(*shares)) == list(chain(*planned))


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

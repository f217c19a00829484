"""The sampler: every user once an epoch, the same for any number of workers, resumable."""

from itertools import chain
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.config import InputError
from raypo.data.candidates import TrainingCandidates
from raypo.data.tokenisation import Encoder
from raypo.training.batches import BatchMaker, make_plan
from raypo.training.schedule import learning_rate


class Characters:
    """A tokenizer of one token a character, enough for an Encoder."""

    eos_token_id = 1

    def __call__(self, text: str, **_: object):
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


def plan(**changes):
    settings = {
        "num_rows": 50,
        "rows": None,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "workers": 2,
        "epochs": 2,
        "seed": 0,
    }
    return make_plan(**(settings | changes))


def visited(a_plan, epoch):
    steps = range(epoch * a_plan.steps_per_epoch, (epoch + 1) * a_plan.steps_per_epoch)
    return [
        row
        for step in steps
        for micro in range(a_plan.gradient_accumulation_steps)
        for worker in range(a_plan.workers)
        for row in a_plan.micro(step, micro, worker)[1]
    ]


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(48, 90)
)
def test_an_epoch_visits_no_row_twice_and_all_but_a_remainder(
    micro, gradient_accumulation_steps, workers, seed, rows
):
    a_plan = plan(
        micro_batch_size=micro,
        gradient_accumulation_steps=gradient_accumulation_steps,
        workers=workers,
        seed=seed,
        num_rows=rows,
    )
    for epoch in range(2):
        seen = visited(a_plan, epoch)
        assert len(seen) == len(set(seen)) == rows - rows % a_plan.users_per_step


def test_workers_divide_the_same_global_batch():
    one, two = plan(micro_batch_size=4, workers=1), plan(micro_batch_size=2, workers=2)
    for step in range(one.total_steps):
        alone = one.micro(step, 0, 0)[1]
        assert alone == two.micro(step, 0, 0)[1] + two.micro(step, 0, 1)[1]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.data())
def test_fewer_workers_than_planned_share_the_same_users(
    micro, gradient_accumulation_steps, workers, data
):
    in_force = data.draw(st.integers(1, workers))
    settings = {
        "micro_batch_size": micro,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "workers": workers,
    }
    whole, fewer = plan(**settings), plan(**settings, in_force=in_force)
    assert fewer.users_per_step == whole.users_per_step
    for step in range(whole.total_steps):
        for one in range(gradient_accumulation_steps):
            shares = [fewer.micro(step, one, worker)[1] for worker in range(in_force)]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            planned = [whole.micro(step, one, worker)[1] for worker in range(workers)]
            assert list(chain(*shares)) == list(chain(*planned))


def test_epochs_differ_in_order_but_not_in_rows():
    a_plan = plan(num_rows=48)
    assert visited(a_plan, 0) != visited(a_plan, 1)
    assert sorted(visited(a_plan, 0)) == sorted(visited(a_plan, 1))


def test_too_few_rows_for_a_step_are_refused_with_the_arithmetic():
    with pytest.raises(
        InputError,
        match=r"5 training rows .*\(12 = micro_batch_size 2 x gradient_accumulation_steps 3",
    ):
        plan(rows=5)


def test_batches_are_the_same_again_and_fresh_in_the_next_epoch():
    train = pd.DataFrame(
        {"user_id": [0, 1], "history": [[1, 2], [3]], "target": [4, 5], "timestamp": [0, 1]}
    )
    titles = [f"t{i}" for i in range(40)]
    encoder = Encoder(Characters(), "{history}|{candidates}", titles)
    maker = BatchMaker(train, TrainingCandidates(train, 40, 10, seed=3), encoder, 0, negatives=3)
    first, again, later = maker(0, [0, 1]), maker(0, [0, 1]), maker(1, [0, 1])
    assert first.packed.tokens.equal(again.packed.tokens)
    assert first.chosen_items.tolist() == [4, 5]
    assert first.history_items.tolist() == [[1, 2], [3, -1]]
    assert not first.rejected_items.equal(later.rejected_items)
    assert first.packed.lengths.shape == (2, 4)
    for row, rejected in enumerate(first.rejected_items.tolist()):
        own = {*train["history"][row], train["target"][row]}
        assert len(set(rejected) - own) == 3


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (9, 10)
    assert rates[-1] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)

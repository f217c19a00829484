"""Users that wait are packed into passes by tokens, whatever number of candidates they have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypo.data.tokenisation import EncodedUsers
from raypo.policy.packing import pack_responses
from raypo.policy.scoring import score_responses
from raypo.serving.passes import plan_passes, take
from tests.policy.models import lora_model

tokens = st.lists(st.integers(3, 30), min_size=1, max_size=6)
users = st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=5)), min_size=1)


def encoded(given: list) -> EncodedUsers:
    return EncodedUsers([prompt for prompt, _ in given], [responses for _, responses in given])


@given(users, st.integers(1, 80))
def test_every_user_is_in_one_pass_and_passes_keep_to_the_budget(given: list, budget: int) -> None:
    waiting = encoded(given)
    passes = plan_passes(waiting, budget)
    assert sorted(user for one in passes for user in one) == list(range(len(given)))
    for one in passes:
        packed = take(waiting, one)
        rows = pack_responses(packed.prompts, packed.responses, pad_token_id=0)
        assert rows.num_tokens <= budget or len(one) == 1
        # Filling up adds no token: those of users alone are as many.
        alone = [
            pack_responses([waiting.prompts[user]], [waiting.responses[user]], 0) for user in one
        ]
        assert rows.num_tokens == sum(row.num_tokens for row in alone)


def test_the_longest_come_first_and_short_ones_fill_their_passes() -> None:
    lengths = [10, 70, 30, 60]
    waiting = EncodedUsers([[5] * n for n in lengths], [[[7]]] * len(lengths))
    assert plan_passes(waiting, 100) == [[1, 2], [3, 0]]


@pytest.mark.parametrize("width", [1, 2])
def test_scores_of_users_together_are_those_of_users_alone(width: int) -> None:
    model = lora_model("llama")
    counts = (3, 1, 5)
    responses = [
        [[5 + number + place, 8, 2] for place in range(width * count)]
        for number, count in enumerate(counts)
    ]
    waiting = EncodedUsers([[3, 4], [5], [6, 7, 8]], responses, None, width == 2)
    packed = take(waiting, [2, 0, 1])

    def score(users: EncodedUsers) -> torch.Tensor:
        return score_responses(
            model, users.prompts, users.responses, 0, 3, is_paired=users.is_pointwise
        )

    together = score(packed)
    assert together.shape == (3, 5)
    for place, user in enumerate([2, 0, 1]):
        (alone,) = score(take(waiting, [user]))
        assert torch.allclose(together[place, : counts[user]], alone, atol=1e-5)

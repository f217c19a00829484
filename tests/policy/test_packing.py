"""Packed rows as data: every user in one row, every token once, rows within the budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.policy import pack_responses

TOKENS = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@st.composite
def users(draw):
    per_user = draw(st.integers(1, 4))
    count = draw(st.integers(1, 8))
    prompts = [draw(TOKENS) for _ in range(count)]
    responses = [[draw(TOKENS) for _ in range(per_user)] for _ in range(count)]
    return prompts, responses


@settings(max_examples=100, deadline=None)
@given(users(), st.one_of(st.none(), st.integers(1, 80)), st.sampled_from([1, 8]))
def test_every_user_is_in_one_row_with_every_token_once(batch, budget, multiple):
    prompts, responses = batch
    packed = pack_responses(prompts, responses, 0, budget, multiple)
    lengths = [
        len(prompt) + sum(len(answer) - 1 for answer in answers)
        for prompt, answers in zip(prompts, responses, strict=True)
    ]
    assert packed.num_tokens == sum(lengths)
    assert sorted(block.length for block in packed.blocks) == sorted(lengths)
    assert packed.tokens.shape[1] % multiple == 0
    assert (packed.segments >= 0).sum() == packed.num_tokens
    for user, prompt in enumerate(prompts):
        rows, columns = (packed.users == user).nonzero(as_tuple=True)
        assert len(set(rows.tolist())) == 1
        assert columns.tolist() == list(range(columns[0], columns[0] + lengths[user]))
        own = packed.tokens[rows[0], columns].tolist()
        rest = [token for answer in responses[user] for token in answer[:-1]]
        assert own == [*prompt, *rest]
    if budget is not None:
        filled = (packed.users >= 0).sum(dim=1).tolist()
        alone = [len(set(row.tolist()) - {-1}) == 1 for row in packed.users]
        assert all(count <= budget or one for count, one in zip(filled, alone, strict=True))


@settings(max_examples=50, deadline=None)
@given(users(), st.integers(1, 80))
def test_first_fit_leaves_no_two_rows_that_fit_into_one(batch, budget):
    packed = pack_responses(*batch, 0, budget)
    filled = sorted((packed.users >= 0).sum(dim=1).tolist())
    if len(filled) > 1:
        assert filled[0] + filled[1] > budget


def test_one_row_for_all_has_no_padding():
    packed = pack_responses([[1, 2, 3], [4]], [[[5, 6]], [[7]]], 0)
    assert packed.tokens.shape == (1, 5)
    assert packed.padding_share == 0
    assert pack_responses([[1, 2, 3], [4]], [[[5, 6]], [[7]]], 0, 1).padding_share == pytest.approx(
        3 / 8
    )


def test_the_last_token_of_a_response_takes_no_column():
    packed = pack_responses([[1, 2]], [[[3, 4], [5]]], pad_token_id=0)
    assert packed.tokens.tolist() == [[1, 2, 3]]
    assert packed.targets.tolist() == [3, 5, 4]
    assert packed.sources.tolist() == [1, 2]
    assert packed.source_of.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ([[]], [[[1]]], "prompt 0 is empty"),
        ([[1]], [[[1], []]], "user 0 has an empty response"),
        ([[1], [1]], [[[1]], [[1], [2]]], "same number of responses"),
        ([[1]], [], "1 prompts and 0 lists"),
    ],
)
def test_malformed_batches_are_refused(prompts, responses, message):
    with pytest.raises(ValueError, match=message):
        pack_responses(prompts, responses, pad_token_id=0)

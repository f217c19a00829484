"""Packed rows as data: every user in one row, every token once, rows within the budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.policy import pack_responses
from raypo.policy.packing import even_rows, first_fit

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
    prefixes = [
        sorted({tuple(answer[:end]) for answer in answers for end in range(1, len(answer))})
        for answers in responses
    ]
    lengths = [len(prompt) + len(own) for prompt, own in zip(prompts, prefixes, strict=True)]
    assert packed.num_tokens == sum(lengths)
    assert sorted(block.length for block in packed.blocks) == sorted(lengths)
    assert packed.tokens.shape[1] % multiple == 0
    assert (packed.users >= 0).sum() == packed.num_tokens
    for user in range(len(prompts)):
        rows, columns = (packed.users == user).nonzero(as_tuple=True)
        assert len(set(rows.tolist())) == 1
        assert columns.tolist() == list(range(columns[0], columns[0] + lengths[user]))
        assert_reads_its_prefixes(packed, rows[0], columns.tolist(), prompts[user], prefixes[user])
    if budget is not None:
        filled = (packed.users >= 0).sum(dim=1).tolist()
        alone = [len(set(row.tolist()) - {-1}) == 1 for row in packed.users]
        assert all(count <= budget or one for count, one in zip(filled, alone, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 100))
def test_even_rows_are_no_more_and_no_longer_than_rows_filled_one_after_the_other(lengths, budget):
    filled, even = first_fit(lengths, budget), even_rows(lengths, budget)
    longest = [max(sum(lengths[user] for user in row) for row in rows) for rows in (filled, even)]
    assert sorted(user for row in even for user in row) == list(range(len(lengths)))
    assert len(even) <= len(filled)
    assert longest[1] <= longest[0]


def test_a_batch_just_over_the_budget_has_two_rows_of_half_its_length():
    assert [len(row) for row in first_fit([10] * 12, 100)] == [10, 2]
    assert [len(row) for row in even_rows([10] * 12, 100)] == [6, 6]


def assert_reads_its_prefixes(packed, row, columns, prompt, prefixes):
    """What each column attends to, itself included, is the prompt and one of the prefixes."""
    tokens, ends = packed.tokens[row], packed.ends[row]
    read = []
    for column in columns:
        seen = [k for k in range(column + 1) if column < ends[k]]
        read.append(tuple(tokens[seen].tolist()))
        assert packed.positions[row, column] == len(seen) - 1
    assert read[: len(prompt)] == [tuple(prompt[: end + 1]) for end in range(len(prompt))]
    assert sorted(one[len(prompt) :] for one in read[len(prompt) :]) == prefixes


@settings(max_examples=100, deadline=None)
@given(users())
def test_every_token_is_predicted_after_what_comes_before_it(batch):
    prompts, responses = batch
    packed = pack_responses(prompts, responses, 0)
    assert packed.source_of.tolist() == sorted(packed.source_of.tolist())
    found = [[[] for _ in own] for own in responses]
    for source, token, flat in zip(
        packed.source_of.tolist(), packed.targets.tolist(), packed.response_of.tolist(), strict=True
    ):
        user, response = divmod(flat, len(responses[0]))
        column = int(packed.sources[source])
        seen = [k for k in range(column + 1) if column < packed.ends[0, k]]
        before = packed.tokens[0, seen].tolist()
        assert before == prompts[user] + found[user][response]
        found[user][response].append(token)
    assert found == responses


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

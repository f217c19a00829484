"""The users that negatives are shared with are those of one stable sort, however it is cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypo.objectives import similarity
from raypo.objectives.similarity import highest, most_similar

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NUMBERS = [-math.inf, -1.0, -0.0, 0.0, 1.0, 2.0, math.inf, math.nan]


def stable_sort(values, k):
    return values.sort(dim=1, descending=True, stable=True).indices[:, :k]


def whole_matrix(embeddings, offset, users, k):
    """The plain computation: all similarities, sorted whole."""
    own = torch.arange(offset, offset + users)
    similarities = embeddings[own] @ embeddings.T
    similarities.scatter_(1, own[:, None], -math.inf)
    return stable_sort(similarities, k)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_highest_are_those_of_a_stable_sort(data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 60))
    # Few different numbers: nearly every row has ties, within the k and at their edge.
    numbers = data.draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4))
    drawn = st.lists(st.sampled_from(numbers), min_size=columns, max_size=columns)
    dtype = data.draw(st.sampled_from(DTYPES))
    values = torch.tensor([data.draw(drawn) for _ in range(rows)], dtype=dtype)
    k = data.draw(st.integers(1, columns))
    assert torch.equal(highest(values, k), stable_sort(values, k))


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_users=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    block=st.sampled_from([1, 50, 1 << 24]),
    different=st.integers(0, 3),
    strange=st.sampled_from([None, math.inf, -math.inf, math.nan]),
    data=st.data(),
)
def test_blocks_find_the_users_of_the_whole_matrix(
    seed, num_users, dtype, block, different, strange, data
):
    generator = torch.Generator().manual_seed(seed)
    # Products of small whole numbers are exact in any order of summation, and often equal.
    embeddings = torch.randint(-different, different + 1, (num_users, 3), generator=generator)
    embeddings = embeddings.to(dtype)
    if strange is not None:
        embeddings[data.draw(st.integers(0, num_users - 1))] = strange
    offset = data.draw(st.integers(0, num_users - 1))
    users = data.draw(st.integers(1, num_users - offset))
    k = data.draw(st.one_of(st.just(0), st.just(num_users - 1), st.integers(0, num_users - 1)))
    found = most_similar(embeddings, offset, users, k, block)
    assert found.dtype == torch.int64
    assert torch.equal(found, whole_matrix(embeddings, offset, users, k))


def test_a_large_batch_of_random_users_in_blocks():
    embeddings = torch.randn(1500, 16, generator=torch.Generator().manual_seed(0)).double()
    for k in (1, 64, 1049):
        found = most_similar(embeddings, 500, 700, k, block_elements=10_000)
        assert torch.equal(found, whole_matrix(embeddings, 500, 700, k))


def test_no_block_is_larger_than_its_bound(monkeypatch):
    seen = []

    def recorded(values, k):
        seen.append(values.numel())
        return highest(values, k)

    monkeypatch.setattr(similarity, "highest", recorded)
    most_similar(torch.randn(300, 4), 0, 300, 5, block_elements=3000)
    assert max(seen) <= 3000 and len(seen) == 30


@pytest.mark.parametrize("k", [1, 8])
def test_users_that_are_all_alike_share_with_the_first(k):
    found = most_similar(torch.ones(100, 4), 50, 2, k, block_elements=100)
    assert found.tolist() == [list(range(k))] * 2

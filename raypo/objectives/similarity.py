"""The most similar users, without the matrix of all similarities.

Shapes: b users of this rank, B users over all ranks, d embedding size, K users shared with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Similarities that exist at a time: bounds the memory of large global batches.
_BLOCK_ELEMENTS = 1 << 24
# From this part of a row on, sorting the row is no slower than selecting from it.
_SORT_FROM = 0.25


@torch.no_grad()
def most_similar(
    embeddings: Tensor, offset: int, users: int, k: int, block_elements: int = _BLOCK_ELEMENTS
) -> Tensor:
    """The k users with the highest inner products, for each user of this rank.

    A user is not similar to itself. The order is that of a stable descending sort: ties go to the
    lower global index, and NaN comes first.

    Args:
        embeddings: [B, d] of all ranks' users.
        offset: global index of this rank's first user.
        users: b.
        k: users to find, from 0 to B - 1.
        block_elements: similarities to hold at a time; at least one row of B is held.

    Returns:
        Global indices [b, k], int64.
    """
    found = torch.empty(users, k, dtype=torch.int64, device=embeddings.device)
    rows_per_block = max(1, block_elements // max(1, len(embeddings)))
    # Without anyone to find nothing is multiplied.
    for start in range(0, users if k else 0, rows_per_block):
        end = min(start + rows_per_block, users)
        own = torch.arange(offset + start, offset + end, device=embeddings.device)
        similarity = embeddings[own] @ embeddings.T
        similarity.scatter_(1, own[:, None], -math.inf)
        found[start:end] = highest(similarity, k)
    return found


def highest(values: Tensor, k: int) -> Tensor:
    """Columns [r, k] of the k highest of `values` [r, c], as a stable descending sort has them.

    `torch.topk` leaves open which of equal values it takes, and in which order. It is right where
    the k-th value is above the next one, once the taken columns are put in order. Other rows are
    sorted.
    """
    if k >= _SORT_FROM * values.shape[1]:
        return _sorted_columns(values)[:, :k]
    top = values.topk(k + 1, dim=1)
    columns = top.indices[:, :k].sort(dim=1).values
    columns = columns.gather(1, _sorted_columns(values.gather(1, columns)))
    # False with NaN on either side, whose ties are sorted as well.
    tied = ~(top.values[:, k - 1] > top.values[:, k])
    if tied.any():
        columns[tied] = _sorted_columns(values[tied])[:, :k]
    return columns


def _sorted_columns(values: Tensor) -> Tensor:
    return values.sort(dim=1, descending=True, stable=True).indices

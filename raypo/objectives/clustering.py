"""Exact 3-means in one dimension, for all users at once (DynamicPO section 3.2, stage 2).

In one dimension the optimal clusters are contiguous in sorted order. The optimum is therefore the
best of all pairs of cuts, and with prefix sums each pair costs a few operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Pairs of cuts compared in one chunk: bounds the memory of long rows.
_PAIRS_PER_CHUNK = 1 << 22


@torch.no_grad()
def top_cluster(values: Tensor, valid: Tensor) -> Tensor:
    """The cluster with the highest centroid of an optimal 3-means clustering of each row.

    Fewer than three distinct values make as many clusters as there are distinct values. Equal
    values are never separated. Runs on the device of `values` without a round trip to the host.

    Args:
        values: [b, E].
        valid: [b, E] which of them to cluster.

    Returns:
        [b, E] True for members of the top cluster; False everywhere in a row without valid values.
    """
    order = values.masked_fill(~valid, -math.inf).sort(dim=1, descending=True, stable=True)
    count = valid.sum(dim=1, keepdim=True)
    first_cut = _best_first_cut(order.values, count)
    positions = torch.arange(values.shape[1], device=values.device)
    members = (positions < first_cut) & (positions < count)
    return torch.zeros_like(valid).scatter_(1, order.indices, members)


def _best_first_cut(ordered: Tensor, count: Tensor) -> Tensor:
    """Size [b, 1] of the top cluster of `ordered` [b, E], whose first `count` [b, 1] are valid."""
    users, width = ordered.shape
    inside = torch.arange(width, device=ordered.device) < count
    centred = torch.where(inside, ordered, 0.0).double()
    # Around the mean: the costs are differences of squares and would lose their digits.
    centred = torch.where(inside, centred - centred.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    sums = torch.nn.functional.pad(centred.cumsum(1), (1, 0))
    squares = torch.nn.functional.pad((centred**2).cumsum(1), (1, 0))
    cuts = torch.arange(width + 1, device=ordered.device)
    allowed = _cuts(ordered, count)
    head = _squared_deviations(sums, squares, cuts)
    tail = _squared_deviations(
        sums.gather(1, count) - sums, squares.gather(1, count) - squares, count - cuts
    )
    best_cost = torch.full((users, 1), math.inf, dtype=torch.float64, device=ordered.device)
    best_cut = count.clone()
    chunk_size = max(1, _PAIRS_PER_CHUNK // max(1, users * (width + 1)))
    for firsts in torch.split(cuts[1:], chunk_size):
        middle = _squared_deviations(
            sums[:, None, :] - sums[:, firsts, None],
            squares[:, None, :] - squares[:, firsts, None],
            cuts - firsts[:, None],
        )
        cost = head[:, firsts, None] + middle + tail[:, None, :]
        possible = allowed[:, firsts, None] & allowed[:, None, :] & (cuts >= firsts[:, None])
        lowest, index = cost.masked_fill(~possible, math.inf).amin(dim=2).min(dim=1, keepdim=True)
        better = lowest < best_cost
        best_cost = torch.where(better, lowest, best_cost)
        best_cut = torch.where(better, firsts[index], best_cut)
    return best_cut


def _cuts(ordered: Tensor, count: Tensor) -> Tensor:
    """Where [b, E + 1] a row may be cut: between different values, and at its end."""
    changes = ordered[:, 1:] != ordered[:, :-1]
    inner = torch.nn.functional.pad(changes, (1, 1))
    positions = torch.arange(inner.shape[1], device=ordered.device)
    return (inner & (positions < count)) | (positions == count)


def _squared_deviations(sums: Tensor, squares: Tensor, size: Tensor) -> Tensor:
    """Squared deviations from the mean of segments with these sums, squares and sizes."""
    return squares - sums**2 / size.clamp(min=1)

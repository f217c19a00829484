"""Attention of short blocks on CPUs, by batched matrix products.

SDPA's CPU kernel computes in tiles, which saves memory for long sequences. For a user's block of a
few hundred tokens its backward pass takes three times as long as five batched products and one
softmax over the whole matrix of weights. That matrix is kept for backward. All blocks of a batch
are one autograd function, so that nothing is cut into pieces and joined again.

Shapes: R rows of T tokens, H query heads, G heads of keys and values, D head size, p tokens of a
block's prompt, l tokens of the block.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Most tokens of a block: a layer keeps H x l x l weights for backward.
MOST_TOKENS = 768


@dataclass(frozen=True)
class MaskedBlock:
    """A user's block of a packed row, as its layers attend.

    Attributes:
        row: index of the row. start: first column. prompt: p. length: l.
        prompt_mask: [p, p], added to the prompt's products; None is causal.
        response_mask: [l - p, l], added to those of the responses with the whole block.
    """

    row: int
    start: int
    prompt: int
    length: int
    prompt_mask: Tensor | None
    response_mask: Tensor

    def parts(self) -> list[tuple[slice, slice, Tensor | None]]:
        """Columns of queries and of keys, and the mask, of the prompt and of the responses."""
        middle, end = self.start + self.prompt, self.start + self.length
        found = [(slice(self.start, middle), slice(self.start, middle), self.prompt_mask)]
        if self.length > self.prompt:
            found.append((slice(middle, end), slice(self.start, end), self.response_mask))
        return found


def attend(
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[MaskedBlock], scale: float
) -> Tensor:
    """Attention [R, T, H, D] of query [R, H, T, D] to key and value [R, G, T, D].

    Args:
        query: consecutive query heads share a head of keys.
        key: [R, G, T, D].
        value: [R, G, T, D].
        blocks: all blocks; columns outside of them are 0.
        scale: factor of the products.
    """
    attended: Tensor = _DenseAttention.apply(query, key, value, blocks, scale)  # type: ignore[no-untyped-call]
    return attended


@functools.lru_cache(maxsize=64)
def _causal(length: int, dtype: torch.dtype) -> Tensor:
    above = torch.ones(length, length, dtype=torch.bool).triu(1)
    return torch.zeros(length, length, dtype=dtype).masked_fill_(above, float("-inf"))


class _DenseAttention(torch.autograd.Function):
    """softmax(scale Q K^T + mask) V of each part, with heads that share keys side by side."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: Sequence[MaskedBlock],
        scale: float,
    ) -> Tensor:
        rows, heads, width, _ = query.shape
        groups = key.shape[1]
        out = query.new_zeros(rows, width, heads, value.shape[3])
        kept = []
        for block in blocks:
            for queries, keys, mask in block.parts():
                mask = _causal(block.prompt, query.dtype) if mask is None else mask
                own = (query[block.row, :, queries] * scale).reshape(groups, -1, query.shape[3])
                weights = torch.bmm(own, key[block.row, :, keys].mT)
                weights.view(heads, *mask.shape).add_(mask)
                weights = torch.softmax(weights, dim=-1)
                attended = torch.bmm(weights, value[block.row, :, keys])
                out[block.row, queries] = attended.view(heads, -1, value.shape[3]).transpose(0, 1)
                kept += [own, weights]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, groups = query.shape[1], key.shape[1]
        results = [torch.zeros_like(one) for one in (query, key, value)]
        saved = iter(kept)
        for block in ctx.blocks:
            for queries, keys, _ in block.parts():
                own, weights = next(saved), next(saved)
                given = gradients[0][block.row, queries].transpose(0, 1)
                given = given.reshape(groups, -1, value.shape[3])
                inner = torch.bmm(given, value[block.row, :, keys].mT)
                inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype)
                by_query = torch.bmm(inner, key[block.row, :, keys]).mul_(ctx.scale)
                results[0][block.row, :, queries] = by_query.view(heads, -1, query.shape[3])
                results[1][block.row, :, keys] += torch.bmm(inner.mT, own)
                results[2][block.row, :, keys] += torch.bmm(weights.mT, given)
        return (*results, None, None)

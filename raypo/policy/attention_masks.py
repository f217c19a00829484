"""Which tokens of packed rows attend to which: masks for the kernels of `attention`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from raypo.policy.packing import Block, PackedResponses

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Kernel = Literal["blocks", "flex"]
FLEX_BLOCK = 128  # columns that FlexAttention works in
_BlockMasks = tuple[Tensor | None, Tensor]


@dataclass
class Layout:
    """A packed batch with its attention masks, which all layers share.

    Attributes:
        packed: on the model's device.
        kernel: how attention is computed.
    """

    packed: PackedResponses
    kernel: Kernel
    _block_masks: dict[tuple[int | None, torch.dtype], list[_BlockMasks]] = field(
        default_factory=dict
    )
    _flex_masks: dict[int | None, BlockMask] = field(default_factory=dict)

    def block_masks(self, window: int | None, dtype: torch.dtype) -> list[_BlockMasks]:
        """For each user: the prompt's additive mask (None is causal) and the responses' one.

        Args:
            window: positions that a query sees back, itself included; None is unlimited.
            dtype: of the masks.
        """
        key = (window, dtype)
        if key not in self._block_masks:
            self._block_masks[key] = [
                _masks_of(self.packed, block, window, dtype) for block in self.packed.blocks
            ]
        return self._block_masks[key]

    def flex_mask(self, window: int | None) -> BlockMask:
        """FlexAttention's block mask; `window` as in `block_masks`."""
        if window not in self._flex_masks:
            self._flex_masks[window] = _flex_mask(self.packed, window)
        return self._flex_masks[window]


@dataclass
class BehindAncestors:
    """C columns behind a prompt and c - C others, whose keys and values are cached.

    Attributes:
        prompt: tokens of the prompt, which all columns attend to.
        depths: [c] tokens between the prompt and each column's.
        ancestors: bool [C, c], which of them a column attends to, itself included.
    """

    prompt: int
    depths: Tensor
    ancestors: Tensor
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    @classmethod
    def of_tree(cls, prompt: int, depths: Tensor, ends: Tensor) -> BehindAncestors:
        """Columns of a whole tree in preorder; [C] `ends` as of `response_tree`."""
        index = torch.arange(len(ends), device=ends.device)
        return cls(prompt, depths, (index <= index[:, None]) & (index[:, None] < ends))

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [C, p + c]; arguments as of `Layout.block_masks`."""
        key = (window, dtype)
        if key not in self._masks:
            own = self.ancestors
            visible = torch.cat([own.new_ones(len(own), self.prompt), own], dim=1)
            if window is not None:
                before = torch.arange(self.prompt, device=own.device)
                positions = torch.cat([before, self.prompt + self.depths])
                queries = positions[-len(own) :, None]
                visible &= positions > queries - window
            additive = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            self._masks[key] = additive.masked_fill_(~visible, float("-inf"))
        return self._masks[key]


def _masks_of(
    packed: PackedResponses, block: Block, window: int | None, dtype: torch.dtype
) -> _BlockMasks:
    columns = slice(block.start, block.end)
    ends, positions = packed.ends[block.row, columns], packed.positions[block.row, columns]
    index = torch.arange(block.start, block.end, device=ends.device)
    visible = (index <= index[:, None]) & (index[:, None] < ends)
    if window is not None:
        visible &= positions > positions[:, None] - window
    additive = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    additive.masked_fill_(~visible, float("-inf"))
    p = block.prompt
    plain = window is None or p <= window
    return None if plain else additive[:p, :p], additive[p:]


def _flex_mask(packed: PackedResponses, window: int | None) -> BlockMask:
    """The block mask, from the layout: `create_block_mask` would make a [T, T] mask first.

    Of `FLEX_BLOCK` x `FLEX_BLOCK` columns, block (i, j) is seen where a column of j is read beyond
    the first of i, and whole where all of them are read up to the last.
    """
    from torch.nn.attention.flex_attention import BlockMask

    ends, positions = packed.ends, packed.positions

    def is_visible(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        visible = (k <= q) & (q < ends[row, k])
        if window is not None:
            visible = visible & (positions[row, k] > positions[row, q] - window)
        return visible

    rows, width = ends.shape
    count = -(-width // FLEX_BLOCK)
    # Columns beyond the row are read by none.
    padded = torch.nn.functional.pad(ends, (0, count * FLEX_BLOCK - width), value=0)
    in_blocks = padded.view(rows, 1, count, FLEX_BLOCK)  # [R, 1, j, columns]
    starts = torch.arange(count, device=ends.device)[:, None] * FLEX_BLOCK
    index = torch.arange(count, device=ends.device)
    before = index < index[:, None]
    seen = (before & (in_blocks.amax(-1) > starts)) | (index == index[:, None])
    whole = before & (in_blocks.amin(-1) >= starts + FLEX_BLOCK)
    if window is not None:
        whole = torch.zeros_like(whole)
    partial = seen & ~whole
    return BlockMask.from_kv_blocks(
        *_ordered(partial),
        *_ordered(whole),
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=is_visible,
        seq_lengths=(width, width),
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Number [R, 1, n] of the set blocks in each row of blocks, and indices, theirs first."""
    counts = blocks.sum(dim=-1).to(torch.int32)
    order = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True)
    return counts[:, None], order.to(torch.int32)[:, None].contiguous()

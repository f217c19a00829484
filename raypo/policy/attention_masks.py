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
class AfterPrompt:
    """C columns of a tree that stand behind a prompt, whose keys and values are cached.

    Attributes:
        prompt: tokens of the prompt.
        depths: [C] tokens between the prompt and each column's.
        ends: [C] one past the last column that attends to each.
    """

    prompt: int
    depths: Tensor
    ends: Tensor
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [C, p + C]; arguments as of `Layout.block_masks`."""
        key = (window, dtype)
        if key not in self._masks:
            index = torch.arange(len(self.ends), device=self.ends.device)
            own = (index <= index[:, None]) & (index[:, None] < self.ends)
            visible = torch.cat([own.new_ones(len(own), self.prompt), own], dim=1)
            if window is not None:
                before = torch.arange(self.prompt, device=index.device)
                positions = torch.cat([before, self.prompt + self.depths])
                visible &= positions > self.prompt + self.depths[:, None] - window
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
    from torch.nn.attention.flex_attention import create_block_mask

    ends, positions = packed.ends, packed.positions

    def is_visible(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        visible = (k <= q) & (q < ends[row, k])
        if window is not None:
            visible = visible & (positions[row, k] > positions[row, q] - window)
        return visible

    rows, width = packed.tokens.shape
    return create_block_mask(is_visible, rows, None, width, width, device=packed.tokens.device)

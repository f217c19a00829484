"""Histories as tensors [b, h]: item ids, oldest first, padded with -1 at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def most_recent(histories: Tensor, count: int) -> Tensor:
    """The last `count` items [b, min(h, count)] of histories [b, h], still padded at the end."""
    if histories.shape[1] <= count:
        return histories
    starts = (_lengths(histories) - count).clamp_min(0)
    positions = starts[:, None] + torch.arange(count, device=histories.device)
    return histories.gather(1, positions.clamp_max(histories.shape[1] - 1))


def ending(histories: Tensor, count: int) -> Tensor:
    """The last `count` items [b, count] of histories [b, h], padded at the start instead."""
    starts = _lengths(histories) - count
    positions = starts[:, None] + torch.arange(count, device=histories.device)
    return histories.gather(1, positions.clamp_min(0)).masked_fill(positions < 0, -1)


def last_states(states: Tensor, histories: Tensor) -> Tensor:
    """Of states [b, h, d] those at the last item of histories [b, h]: [b, d]."""
    rows = torch.arange(len(histories), device=histories.device)
    return states[rows, _lengths(histories) - 1]


def pad_sequences(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Item ids [b, longest] padded with -1 at the end."""
    width = max(len(sequence) for sequence in sequences)
    padded = np.full((len(sequences), width), -1, dtype=np.int64)
    for index, sequence in enumerate(sequences):
        padded[index, : len(sequence)] = sequence
    return torch.from_numpy(padded)


def _lengths(histories: Tensor) -> Tensor:
    return (histories >= 0).sum(dim=1)

"""One process as a rank of many: what a rank computes and sends, without the others.

Shapes: b users of a rank, n sampled negatives each, W ranks, B = W b users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from raypo.objectives import PreferenceBatch
from raypo.objectives.collectives import Collective, GlobalBatch

_CATALOGUE_SIZE, _HISTORY_LENGTH = 5000, 10


@dataclass(frozen=True)
class Message:
    """A collective that a rank takes part in.

    Attributes:
        operation: `gather`, where every rank receives all ranks' bytes, or `reduction`.
        num_bytes: that this rank puts in.
    """

    operation: Literal["gather", "reduction"]
    num_bytes: int


@dataclass
class SimulatedRanks(Collective):
    """Rank 0 of ranks that are alike: gathers repeat its rows, reductions multiply its values.

    The objective computes and lays out its bytes as on a cluster of this size; nothing is sent.

    Attributes:
        num_ranks: W.
        messages: all collectives so far, in order.
    """

    num_ranks: int = 1
    messages: list[Message] = field(default_factory=list)
    _noise: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def world_size(self) -> int:
        """W."""
        return self.num_ranks

    @property
    def rank(self) -> int:
        """Always the first."""
        return 0

    def gather(self, columns: Sequence[Tensor]) -> tuple[list[Tensor], GlobalBatch]:
        """Columns [B, c]; the other ranks' numbers differ, as equal users would all be tied."""
        tables, batch = super().gather(columns)
        own = len(columns[0])
        for table in tables:
            if table.is_floating_point() and self.num_ranks > 1:
                others = table[own:]
                others += self._noise_like(others)
        return tables, batch

    def _noise_like(self, table: Tensor) -> Tensor:
        """The same noise at every step: drawing it is no part of what is measured."""
        key = (table.shape[0], table.shape[1])
        if key not in self._noise:
            generator = torch.Generator().manual_seed(0)
            self._noise[key] = torch.randn(key, generator=generator).to(table)
        return self._noise[key]

    def _all_gather(self, sent: Tensor) -> Tensor:
        self.messages.append(Message("gather", sent.numel() * sent.element_size()))
        return sent.expand(self.num_ranks, *sent.shape).contiguous()

    def _all_reduce(self, values: Tensor) -> None:
        self.messages.append(Message("reduction", values.numel() * values.element_size()))
        values.mul_(self.num_ranks)


def synthetic_batch(
    b: int, n: int, device: torch.device, embedding_size: int = 64
) -> PreferenceBatch:
    """Random log-probs, items and embeddings of b users with n negatives, as a rank has them."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(_CATALOGUE_SIZE, embedding_size, generator=generator)
    items = torch.nn.functional.normalize(items, dim=1).to(device)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(_CATALOGUE_SIZE, shape, generator=generator).to(device)

    def item_scores(users: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.normalize(users, dim=1) @ items.T
        return scores.gather(1, candidates)

    return PreferenceBatch(
        chosen_logps=(2 * normal(b) - 6).requires_grad_(),
        rejected_logps=(2 * normal(b, n) - 7).requires_grad_(),
        chosen_lengths=torch.full((b,), 6, device=device),
        rejected_lengths=torch.full((b, n), 6, device=device),
        reference_chosen_logps=2 * normal(b) - 6,
        reference_rejected_logps=2 * normal(b, n) - 7,
        user_embeddings=normal(b, embedding_size),
        chosen_items=ids(b),
        rejected_items=ids(b, n),
        history_items=ids(b, _HISTORY_LENGTH),
        item_scores=item_scores,
    )

"""Collectives over ranks whose batches may differ in size.

The contract: a gathered table holds the rows of all ranks in rank order. The backward of a gather
with gradient sums the gradients that all ranks have for a row. A rank's loss is its share
(W * local sum / global count), and the engine averages gradients over the W ranks. Together they
give exactly the gradient of the global mean.

A step of an objective needs at most one gather without gradient (`gather`, or `gather_stats` where
only statistics are sent), one gather with gradient (`gather_with_grad`; its backward is one
reduction of [B, n]) and one reduction (`all_reduce_sum`). A batch that is wider than any before it,
as the first one always is, repeats the gather without gradient with more capacity.

Without torch.distributed the batch at hand is the global batch and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from raypo.objectives.device_timer import DeviceTimer

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# The newer name, where torch has it: the older one warns there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

_HEADER_BYTES = 16  # number of users and bytes of a user's row, int64 each


@dataclass(frozen=True)
class GlobalBatch:
    """How the users of the global batch are spread over the ranks.

    Attributes:
        sizes: users in each rank's batch, by rank.
        rank: of this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def num_users(self) -> int:
        """Users over all ranks (B)."""
        return sum(self.sizes)

    @property
    def offset(self) -> int:
        """Global index of this rank's first user."""
        return sum(self.sizes[: self.rank])


@dataclass
class Collective:
    """Gathers and reductions over the ranks that share a global batch.

    Attributes:
        group: torch.distributed group; None is the default one, where there is one.
        alone: this rank's batch is the global batch, whatever the group.
        capacity: rows that each rank sends in `gather`: the widest batch so far, the same on every
            rank because every rank has seen the same sizes.
    """

    group: ProcessGroup | None = None
    alone: bool = False
    capacity: int = 0
    _timer: DeviceTimer = field(default_factory=DeviceTimer, repr=False)

    @property
    def seconds(self) -> float:
        """Seconds spent in collectives so far; waits for the GPU where they ran on one."""
        return self._timer.seconds()

    @property
    def world_size(self) -> int:
        """Ranks in the group (W); 1 without torch.distributed."""
        if self.alone or not dist.is_available() or not dist.is_initialized():
            return 1
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """This process's rank in the group; 0 without torch.distributed."""
        return 0 if self.world_size == 1 else dist.get_rank(self.group)

    def gather(self, columns: Sequence[Tensor]) -> tuple[list[Tensor], GlobalBatch]:
        """Gather each column from all ranks, without gradient, and the ranks' batch sizes.

        Args:
            columns: tensors [b, c] of any dtype; c and dtype are the same on every rank.

        Returns:
            Columns [B, c] in rank order, and the batch sizes.

        Raises:
            ValueError: the ranks' rows have different widths.
        """
        if self.world_size == 1:
            return [column.detach() for column in columns], GlobalBatch((len(columns[0]),), 0)
        rows = torch.cat([_as_bytes(column) for column in columns], dim=1)
        gathered, sizes = self._gather_ragged(rows)
        batch = GlobalBatch(sizes, self.rank)
        joined = torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
        widths = [column.shape[1] * column.element_size() for column in columns]
        parts = torch.split(joined, widths, dim=1)
        return [
            _from_bytes(part, column.dtype, column.shape[1])
            for part, column in zip(parts, columns, strict=True)
        ], batch

    def _gather_ragged(self, rows: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Bytes [W, capacity, width] and batch sizes; repeated if a batch exceeds the capacity."""
        users, width = rows.shape
        header = torch.tensor([users, width], device=rows.device).view(torch.uint8)
        while True:
            kept = min(users, self.capacity)
            body = pad(rows[:kept], (0, 0, 0, self.capacity - kept))
            received = self._all_gather(torch.cat([header, body.flatten()]))
            headers = _from_bytes(received[:, :_HEADER_BYTES], torch.int64, 2).tolist()
            if any(other != width for _, other in headers):
                raise ValueError(
                    "ranks differ in the bytes of a user's row (negatives or embedding size): "
                    + ", ".join(f"rank {rank}: {w} bytes" for rank, (_, w) in enumerate(headers))
                )
            sizes = tuple(size for size, _ in headers)
            if max(sizes) <= self.capacity:
                return received[:, _HEADER_BYTES:].view(-1, self.capacity, width), sizes
            self.capacity = max(sizes)

    def gather_with_grad(
        self, rows: Tensor, stats: Tensor, batch: GlobalBatch
    ) -> tuple[Tensor, Tensor]:
        """Gather rows with gradient, and statistics without, in one collective.

        Args:
            rows: [b, c] float32.
            stats: [k] float64, such as a batch's moments.
            batch: batch sizes, from `gather`.

        Returns:
            Rows [B, c] in rank order and statistics [W, k].
        """
        if self.world_size == 1:
            return rows, stats[None]
        table, all_stats = _GatherWithGrad.apply(rows, stats, batch, self)  # type: ignore[no-untyped-call]
        return table, all_stats

    def gather_stats(self, stats: Tensor) -> Tensor:
        """Gather statistics [k] float64 to [W, k], where no rows are exchanged."""
        return stats[None] if self.world_size == 1 else self._all_gather(stats)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over ranks; carries no gradient."""
        values = values.detach().clone()
        if self.world_size > 1:
            self._all_reduce(values)
        return values

    # All that is sent goes through these two methods, which the benchmarks replace.

    def _all_reduce(self, values: Tensor) -> None:
        with self._timer.measure(values.device):
            dist.all_reduce(values, group=self.group)

    def _all_gather(self, sent: Tensor) -> Tensor:
        received = sent.new_empty((self.world_size, *sent.shape))
        with self._timer.measure(sent.device):
            _all_gather(received.view(-1), sent.contiguous().view(-1), group=self.group)
        return received


class _GatherWithGrad(torch.autograd.Function):
    """All-gather whose backward sums gradients over ranks and returns those of the rank's rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, stats: Tensor, batch: GlobalBatch, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        ctx.batch, ctx.collective = batch, collective
        padded_size, columns = max(batch.sizes), rows.shape[1]
        # float64 is sent as its bits: a gather copies bytes and never reads them as numbers.
        head = stats.view(torch.float32)
        body = pad(rows, (0, 0, 0, padded_size - len(rows)))
        received = collective._all_gather(torch.cat([head, body.flatten()]))
        all_stats = _from_bytes(received[:, : len(head)], torch.float64, len(stats))
        tables = received[:, len(head) :].view(-1, padded_size, columns)
        ctx.mark_non_differentiable(all_stats)
        return torch.cat([t[:size] for t, size in zip(tables, batch.sizes, strict=True)]), all_stats

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        batch: GlobalBatch = ctx.batch
        summed = ctx.collective.all_reduce_sum(gradients[0].contiguous())
        return summed[batch.offset : batch.offset + batch.sizes[batch.rank]], None, None, None


def _as_bytes(column: Tensor) -> Tensor:
    return column.detach().contiguous().view(torch.uint8)


def _from_bytes(columns: Tensor, dtype: torch.dtype, width: int) -> Tensor:
    """Bits [r, w] read as [r, width] of `dtype`; flat first, as a view needs whole strides."""
    return columns.reshape(-1).view(dtype).view(len(columns), width)

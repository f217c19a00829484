"""Collectives over workers whose batches may differ in size.

The contract, stated once: a gathered table holds all workers' rows in rank order; the backward of a
gather with gradient sums what every worker's loss says about a row. A worker's loss is its share
(W * local sum / global count), and the engine averages gradients over the W workers, so together
they give exactly the gradient of the global mean.

A step of an objective costs at most one gather of what needs no gradient (`facts`, or `headers`
where only statistics travel), one gather of values with gradient (`values`; its backward is one
reduction of [B, n]) and one reduction (`total`). Only when a batch is wider than any before it, the
first step above all, is the gather of facts repeated with more room.

Without torch.distributed the batch at hand is the global batch and nothing is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

Group = Any  # a torch.distributed process group; None is the default one

# The newer name, where torch has it: the older one warns there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

_HEADER_BYTES = 16  # users and bytes of a user's row, int64 each


@dataclass(frozen=True)
class World:
    """This worker's place among all, and everyone's batch size.

    Attributes:
        sizes: users in each worker's batch, by rank.
        rank: this worker's.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def total(self) -> int:
        """Users over all workers (B)."""
        return sum(self.sizes)

    @property
    def offset(self) -> int:
        """Global index of this worker's first user."""
        return sum(self.sizes[: self.rank])


@dataclass
class Collective:
    """The workers that share a batch, and how they exchange a step's numbers.

    Attributes:
        group: torch.distributed group; None is the default one, where there is one.
        seconds: spent in collectives so far.
        capacity: users that the gather of facts has room for: the widest batch seen, the same on
            every worker because every worker has seen the same sizes.
    """

    group: Group = None
    seconds: float = 0.0
    capacity: int = 0

    @property
    def workers(self) -> int:
        """Workers in the group (W); 1 without torch.distributed."""
        if not dist.is_available() or not dist.is_initialized():
            return 1
        return dist.get_world_size(self.group)

    def facts(self, columns: Sequence[Tensor]) -> tuple[list[Tensor], World]:
        """All workers' rows of each column, in rank order, without gradient; learns the sizes.

        Args:
            columns: tensors [b, c] of any dtype; c and dtype are the same on every worker.

        Raises:
            ValueError: the workers' rows have different widths.
        """
        if self.workers == 1:
            return [column.detach() for column in columns], World((len(columns[0]),), 0)
        rows = torch.cat([_as_bytes(column) for column in columns], dim=1)
        gathered, sizes = self._gather_ragged(rows)
        world = World(sizes, dist.get_rank(self.group))
        joined = torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
        widths = [column.shape[1] * column.element_size() for column in columns]
        parts = torch.split(joined, widths, dim=1)
        return [
            _from_bytes(part, column.dtype, column.shape[1])
            for part, column in zip(parts, columns, strict=True)
        ], world

    def _gather_ragged(self, rows: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Bytes [W, capacity, width] and sizes; once more with more room if a batch is wider."""
        users, width = rows.shape
        header = torch.tensor([users, width], device=rows.device).view(torch.uint8)
        while True:
            kept = min(users, self.capacity)
            body = pad(rows[:kept], (0, 0, 0, self.capacity - kept))
            received = self._all_gather(torch.cat([header, body.flatten()]))
            headers = _from_bytes(received[:, :_HEADER_BYTES], torch.int64, 2).tolist()
            if any(other != width for _, other in headers):
                raise ValueError(
                    "workers disagree on what a user brings (negatives or embedding size): "
                    + ", ".join(f"worker {r}: {w} bytes" for r, (_, w) in enumerate(headers))
                )
            sizes = tuple(size for size, _ in headers)
            if max(sizes) <= self.capacity:
                return received[:, _HEADER_BYTES:].view(-1, self.capacity, width), sizes
            self.capacity = max(sizes)

    def values(self, rows: Tensor, header: Tensor, world: World) -> tuple[Tensor, Tensor]:
        """All workers' rows [B, c] with gradient, and their headers [W, k] without.

        Args:
            rows: [b, c] float32.
            header: [k] float64 that travels along, such as a batch's statistics.
            world: sizes, from `facts`.
        """
        if self.workers == 1:
            return rows, header[None]
        table, headers = _GatherValues.apply(rows, header, world, self)  # type: ignore[no-untyped-call]
        return table, headers

    def headers(self, header: Tensor) -> Tensor:
        """All workers' headers [W, k] float64, where no rows need to travel."""
        return header[None] if self.workers == 1 else self._all_gather(header)

    def total(self, values: Tensor) -> Tensor:
        """Sum of `values` over workers; carries no gradient."""
        values = values.detach().clone()
        if self.workers > 1:
            with self._timed():
                dist.all_reduce(values, group=self.group)
        return values

    def _all_gather(self, sent: Tensor) -> Tensor:
        received = sent.new_empty((self.workers, *sent.shape))
        with self._timed():
            _all_gather(received.view(-1), sent.contiguous().view(-1), group=self.group)
        return received

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


class _GatherValues(torch.autograd.Function):
    """All-gather whose backward sums over workers and keeps the worker's own rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, header: Tensor, world: World, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        ctx.world, ctx.collective = world, collective
        room, columns = max(world.sizes), rows.shape[1]
        # float64 travels as its bits: a gather copies bytes and never reads them as numbers.
        head = header.view(torch.float32)
        body = pad(rows, (0, 0, 0, room - len(rows)))
        received = collective._all_gather(torch.cat([head, body.flatten()]))
        headers = _from_bytes(received[:, : len(head)], torch.float64, len(header))
        tables = received[:, len(head) :].view(-1, room, columns)
        ctx.mark_non_differentiable(headers)
        return torch.cat([t[:size] for t, size in zip(tables, world.sizes, strict=True)]), headers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        world: World = ctx.world
        summed = ctx.collective.total(gradients[0].contiguous())
        return summed[world.offset : world.offset + world.sizes[world.rank]], None, None, None


def _as_bytes(column: Tensor) -> Tensor:
    return column.detach().contiguous().view(torch.uint8)


def _from_bytes(columns: Tensor, dtype: torch.dtype, width: int) -> Tensor:
    """Bits [r, w] read as [r, width] of `dtype`; flat first, as a view needs whole strides."""
    return columns.reshape(-1).view(dtype).view(len(columns), width)

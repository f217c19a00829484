"""Collectives over workers whose batches may differ in size.

The contract, stated once: a gathered tensor holds all workers' rows in rank order; the backward of
a gather with gradient sums what every worker's loss says about a row. A worker's loss is its share
(W * local sum / global count), and the engine averages gradients over the W workers, so together
they give exactly the gradient of the global mean.

Without torch.distributed the batch at hand is the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any  # a torch.distributed process group; None is the default one

# The newer name, where torch has it: the older one warns there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class World:
    """This worker's place among all, and everyone's batch size.

    Attributes:
        sizes: users in each worker's batch, by rank.
        rank: this worker's.
        group: the process group, or None for the default one.
    """

    sizes: tuple[int, ...]
    rank: int
    group: Group = None

    @property
    def total(self) -> int:
        """Users over all workers (B)."""
        return sum(self.sizes)

    @property
    def offset(self) -> int:
        """Global index of this worker's first user."""
        return sum(self.sizes[: self.rank])


def meet(local_size: int, device: torch.device, group: Group = None) -> World:
    """Learn everyone's batch size; one small gather."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
        return World((local_size,), 0, group)
    workers = dist.get_world_size(group)
    sizes = torch.empty(workers, dtype=torch.long, device=device)
    _all_gather(sizes, torch.tensor([local_size], device=device), group=group)
    return World(tuple(sizes.tolist()), dist.get_rank(group), group)


def gather(rows: Tensor, world: World) -> Tensor:
    """All workers' rows [B, c] in rank order, with gradient where `rows` [b, c] carries it."""
    if len(world.sizes) == 1:
        return rows
    widest = max(world.sizes)
    padded = torch.nn.functional.pad(rows, (0, 0, 0, widest - len(rows)))
    gathered: Tensor = _Gather.apply(padded, world)  # type: ignore[no-untyped-call]
    parts = gathered.view(len(world.sizes), widest, -1)
    return torch.cat([part[:size] for part, size in zip(parts, world.sizes, strict=True)])


def total(values: Tensor, world: World) -> Tensor:
    """Sum of `values` over workers; carries no gradient."""
    values = values.detach().clone()
    if len(world.sizes) > 1:
        dist.all_reduce(values, group=world.group)
    return values


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums over workers and keeps the worker's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.world = world
        gathered = rows.new_empty((len(world.sizes) * len(rows), *rows.shape[1:]))
        _all_gather(gathered, rows.contiguous(), group=world.group)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        world: World = ctx.world
        summed = gradients[0].contiguous()
        dist.all_reduce(summed, group=world.group)
        return summed.chunk(len(world.sizes))[world.rank], None

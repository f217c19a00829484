"""The sampler: which training rows form each micro-batch of each rank.

Every micro-batch is a function of (seed, step, rank). A resumed run therefore continues exactly
where it stopped, and a global batch holds the same users in the same order whatever number of ranks
divides it, and whatever micro-batches a rank makes of its share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypo.config import SharingScope
from raypo.data.permutation import Permutation, draw
from raypo.errors import InputError


@dataclass(frozen=True)
class BatchSizes:
    """Users of an optimiser step, and the ranks that share them.

    Attributes:
        micro_batch_size: users per rank and forward pass.
        gradient_accumulation_steps: micro-batches per optimiser step with `world_size` ranks.
        world_size: number of ranks that the batch is made for.
        active_world_size: number of ranks that take part, where some are missing; they share the
            same users. None is `world_size`.
        sharing_scope: users of a global batch: all of a `step`, or one `micro_batch` of all ranks.
    """

    micro_batch_size: int
    gradient_accumulation_steps: int = 1
    world_size: int = 1
    active_world_size: int | None = None
    sharing_scope: SharingScope = "step"


@dataclass(frozen=True)
class BatchSampler:
    """Training rows of each micro-batch.

    Attributes:
        rows: training rows that take part, each once per epoch; its elements are read by arrays of
            positions.
        global_batch: users of one global batch over all ranks, who share negatives.
        global_batches: global batches per optimiser step.
        micro_batch_size: most users of a rank's micro-batch.
        world_size: number of ranks. Where it does not divide `global_batch`, the first ranks take
            one user more.
        epochs: passes over `rows`.
        seed: seed of the order of rows in each epoch.
    """

    rows: np.ndarray | Permutation
    global_batch: int
    global_batches: int
    micro_batch_size: int
    world_size: int
    epochs: int
    seed: int

    @property
    def users_per_step(self) -> int:
        """Users in one optimiser step over all ranks."""
        return self.global_batch * self.global_batches

    @property
    def steps_per_epoch(self) -> int:
        """Whole optimiser steps in an epoch; the rows that are left over are skipped."""
        return len(self.rows) // self.users_per_step

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    @property
    def micro_batches(self) -> int:
        """Micro-batches of each rank in a global batch, the same number for every rank."""
        largest_share = -(-self.global_batch // self.world_size)
        return -(-largest_share // self.micro_batch_size)

    def rank_batches(self, step: int, rank: int) -> tuple[int, list[list[list[int]]]]:
        """Epoch, and training rows of one rank: its micro-batches of each global batch of a step.

        A rank's users follow those of the rank before it. Where its share has fewer users than
        there are micro-batches, the last ones are empty.

        Args:
            step: optimiser step, from 0.
            rank: rank of the process, below `world_size`.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.users_per_step
        order = Permutation((self.seed, epoch), len(self.rows))
        rows = self.rows[order[np.arange(start, start + self.users_per_step)]]
        shares = [
            np.array_split(batch, self.world_size)[rank]
            for batch in rows.reshape(self.global_batches, -1)
        ]
        return epoch, [
            [part.tolist() for part in np.array_split(share, self.micro_batches)]
            for share in shares
        ]


def make_batch_sampler(
    num_rows: int,
    max_rows: int | None,
    sizes: BatchSizes,
    epochs: int,
    seed: int,
    eligible: np.ndarray | None = None,
) -> BatchSampler:
    """Draw `max_rows` of the `num_rows` training rows and divide them into steps.

    Args:
        num_rows: rows of the data set.
        max_rows: rows to draw; None takes all.
        sizes: users per step, and the ranks that share them.
        epochs: passes over the drawn rows.
        seed: seed of the draw and of the order.
        eligible: rows that may be drawn, ascending; None is all of them.

    Raises:
        InputError: the rows do not fill one optimiser step.
    """
    available = num_rows if eligible is None else len(eligible)
    count = available if max_rows is None else min(max_rows, available)
    global_batches = sizes.gradient_accumulation_steps if sizes.sharing_scope != "step" else 1
    users_per_step = sizes.micro_batch_size * sizes.gradient_accumulation_steps * sizes.world_size
    rows = draw([seed, num_rows], available, count)
    sampler = BatchSampler(
        rows=rows if eligible is None else eligible[rows[np.arange(count)]],
        global_batch=users_per_step // global_batches,
        global_batches=global_batches,
        micro_batch_size=sizes.micro_batch_size,
        world_size=sizes.active_world_size or sizes.world_size,
        epochs=epochs,
        seed=seed,
    )
    if sampler.steps_per_epoch == 0:
        raise InputError(
            f"{count} training rows are fewer than one optimiser step takes "
            f"({sampler.users_per_step} = micro_batch_size {sizes.micro_batch_size} x "
            f"gradient_accumulation_steps {sizes.gradient_accumulation_steps} x workers "
            f"{sizes.world_size})"
        )
    return sampler

"""The batches of each optimiser step, made while the step before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from raypo.training.batches import Batch, BatchMaker

if TYPE_CHECKING:
    from raypo.training.trainer import Job


@dataclass(frozen=True)
class GlobalBatch:
    """This rank's users of a global batch.

    Attributes:
        micro_batches: users of each forward pass. A micro-batch without users of its own repeats
            one, so that every rank runs as many passes.
        counts: users of each micro-batch that count.
    """

    micro_batches: list[Batch]
    counts: list[int]

    def users(self, index: int) -> slice:
        """Where the users of a micro-batch stand among all that count."""
        start = sum(self.counts[:index])
        return slice(start, start + self.counts[index])

    def pinned(self) -> GlobalBatch:
        """The same, with packed rows in memory that a GPU copies from while it computes."""
        batches = [replace(one, packed=one.packed.pinned()) for one in self.micro_batches]
        return replace(self, micro_batches=batches)


@dataclass(frozen=True)
class StepBatches:
    """This rank's users of an optimiser step.

    Attributes:
        global_batches: in the order in which gradients are accumulated.
        prompts_cut: prompts so far that were cut to fit, when these had been made.
    """

    global_batches: list[GlobalBatch]
    prompts_cut: int


def make_global_batch(
    make_batch: BatchMaker, epoch: int, rows: Sequence[Sequence[int]]
) -> GlobalBatch:
    """Draw and pack the users of each micro-batch.

    Args:
        make_batch: turns training rows into tensors.
        epoch: pass over the data, from 0.
        rows: training rows of each micro-batch; the last ones may be empty.
    """
    repeated = [row for part in rows for row in part][-1:]
    batches = [make_batch(epoch, list(part) or repeated) for part in rows]
    return GlobalBatch(batches, [len(part) for part in rows])


class BatchLoader:
    """Gives the batches of one step after the other, and makes the next step's on a thread.

    A context: the thread ends with it. Tokenizers are not made for two threads at once, so call
    `wait` before the job's encoder is used elsewhere.
    """

    def __init__(self, job: Job, prefetches: bool | None = None) -> None:
        """Load for the steps of a job.

        Args:
            job: what is trained with.
            prefetches: whether the next step's batches are made meanwhile; None is for GPUs alone.
                On CPUs the policy leaves no core free for it.
        """
        self._pins = job.engine.device.type == "cuda"
        self._job = job
        self._prefetches = self._pins if prefetches is None else prefetches
        # A new thread pins memory through the first GPU, and would take memory there on every rank.
        own = partial(torch.cuda.set_device, torch.cuda.current_device()) if self._pins else None
        self._thread = ThreadPoolExecutor(1, "batches", own)
        self._next: tuple[int, Future[StepBatches]] | None = None

    def __call__(self, step: int) -> StepBatches:
        """This rank's batches of a step.

        Raises:
            InputError: a prompt does not fit, as `Encoder.prompt`.
        """
        waiting, self._next = self._next, None
        if waiting is not None and waiting[0] == step:
            batches = waiting[1].result()
        else:
            batches = self._make(step)
        if self._prefetches and self._is_known(step + 1):
            self._next = step + 1, self._thread.submit(self._make, step + 1)
        return batches

    def wait(self) -> None:
        """Return when nothing is being made."""
        if self._next is not None:
            wait([self._next[1]])

    def __enter__(self) -> BatchLoader:
        """The loader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _is_known(self, step: int) -> bool:
        """Whether a step's negatives can be drawn before the step begins."""
        play = self._job.self_play
        is_in_run = step < self._job.sampler.total_steps
        return is_in_run and (play is None or play.round_of(step) == play.round)

    def _make(self, step: int) -> StepBatches:
        job = self._job
        epoch, global_batches = job.sampler.rank_batches(step, job.rank)
        made = [make_global_batch(job.make_batch, epoch, rows) for rows in global_batches]
        if self._pins:
            made = [one.pinned() for one in made]
        return StepBatches(made, job.make_batch.encoder.cut_prompts)

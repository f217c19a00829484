"""Which users each worker sees at each step, and the tensors made of them.

Everything is a function of (seed, epoch, step, micro-batch, worker): a resumed run takes up exactly
where it stopped, and the global batch is the same users in the same order for any number of
workers that divides it alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from raypo.config import InputError
from raypo.data.candidates import TrainingCandidates
from raypo.data.tokenisation import Encoder
from raypo.policy.packing import PackedResponses, pack_responses
from raypo.recommenders.train import pad_sequences


@dataclass(frozen=True)
class Plan:
    """The sampler: which training rows form which micro-batch.

    Attributes:
        rows: training rows taken part of; each once an epoch.
        pool: users of one micro-batch over all workers, who share negatives.
        gradient_accumulation_steps: micro-batches per optimiser step.
        workers: number of workers; where it does not divide `pool`, the first take one user more.
        epochs: passes over `rows`.
        seed: of the order of users in each epoch.
    """

    rows: tuple[int, ...]
    pool: int
    gradient_accumulation_steps: int
    workers: int
    epochs: int
    seed: int

    @property
    def users_per_step(self) -> int:
        """Users in one optimiser step over all workers."""
        return self.pool * self.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        """Whole optimiser steps in an epoch; what is left over sits this epoch out."""
        return len(self.rows) // self.users_per_step

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def micro(self, step: int, micro: int, worker: int) -> tuple[int, list[int]]:
        """Epoch and training rows of one worker's micro-batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        start = position * self.users_per_step + micro * self.pool
        own = np.array_split(order[start : start + self.pool], self.workers)[worker]
        return epoch, [self.rows[i] for i in own]


def make_plan(
    num_rows: int,
    rows: int | None,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    workers: int,
    epochs: int,
    seed: int,
    in_force: int | None = None,
) -> Plan:
    """Draw `rows` of the `num_rows` training rows (None takes all) and plan the steps.

    Args:
        num_rows: of the data set.
        rows: that take part.
        micro_batch_size: users per worker and forward pass, when there are `workers`.
        gradient_accumulation_steps: micro-batches per optimiser step.
        workers: that the batch is made for.
        epochs: passes over the rows.
        seed: of rows and order.
        in_force: workers that there are, if not all; they share the same users among them.

    Raises:
        InputError: too few rows for one step.
    """
    rows = num_rows if rows is None else min(rows, num_rows)
    chosen = np.random.default_rng([seed, num_rows]).choice(num_rows, rows, replace=False)
    pool = micro_batch_size * workers
    plan = Plan(
        tuple(chosen.tolist()), pool, gradient_accumulation_steps, in_force or workers, epochs, seed
    )
    if plan.steps_per_epoch == 0:
        raise InputError(
            f"{rows} training rows are fewer than one optimiser step takes ({plan.users_per_step} "
            f"= micro_batch_size {micro_batch_size} x gradient_accumulation_steps "
            f"{gradient_accumulation_steps} x workers {workers})"
        )
    return plan


@dataclass(frozen=True)
class Batch:
    """One worker's micro-batch of b users with n negatives.

    Attributes:
        packed: prompts and responses, the target first.
        chosen_items: [b]; rejected_items: [b, n]; history_items: [b, h] padded with -1.
        keys: (epoch, row) of each user, by which reference log-probs are kept.
    """

    packed: PackedResponses
    chosen_items: Tensor
    rejected_items: Tensor
    history_items: Tensor
    keys: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BatchMaker:
    """Turns training rows into batches."""

    train: pd.DataFrame
    candidates: TrainingCandidates
    encoder: Encoder
    pad_token_id: int
    negatives: int
    token_budget: int | None = None
    row_multiple: int = 1

    def __call__(self, epoch: int, rows: Sequence[int]) -> Batch:
        """The batch of these training rows with this epoch's candidates and negatives."""
        histories = [self.train["history"].iat[row] for row in rows]
        targets = [int(self.train["target"].iat[row]) for row in rows]
        rejected = [
            self.candidates.negatives(row, epoch, self.negatives) if self.negatives else []
            for row in rows
        ]
        prompts = [
            self.encoder.prompt(history, self.candidates.draw(row, epoch))
            for row, history in zip(rows, histories, strict=True)
        ]
        responses = [
            [self.encoder.response(item) for item in (target, *items)]
            for target, items in zip(targets, rejected, strict=True)
        ]
        return Batch(
            packed=pack_responses(
                prompts, responses, self.pad_token_id, self.token_budget, self.row_multiple
            ),
            chosen_items=torch.tensor(targets),
            rejected_items=torch.tensor(rejected, dtype=torch.long).view(len(rows), self.negatives),
            history_items=pad_sequences(histories),
            keys=tuple((epoch, row) for row in rows),
        )

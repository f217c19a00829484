"""Tensors of a micro-batch, made from its training rows.

A batch is a function of (epoch, rows): candidates and negatives are drawn anew every epoch, and
the same ones again when a run is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from raypo.data.candidates import TrainingCandidates
from raypo.data.tokenisation import Encoder
from raypo.data.training_rows import TrainingRows
from raypo.policy.packing import PackedResponses, pack_responses
from raypo.recommenders.histories import pad_sequences
from raypo.training.negative_sampling import NegativeSampler

_HINT_DROPOUT = 1  # number of this stream of random draws


@dataclass(frozen=True)
class Batch:
    """One rank's micro-batch of b users with n negatives.

    Attributes:
        packed: prompts and responses, the target first.
        chosen_items: [b] item ids.
        rejected_items: [b, n] item ids.
        history_items: [b, h] item ids padded with -1.
        seen_items: [b, s] everything that each user interacted with in training, padded with -1.
        keys: (epoch, row) of each user, by which reference log-probs are stored.
    """

    packed: PackedResponses
    chosen_items: Tensor
    rejected_items: Tensor
    history_items: Tensor
    seen_items: Tensor
    keys: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches of training rows.

    Attributes:
        rows: the training rows.
        candidates: candidates and negatives of each row.
        encoder: turns users into tokens.
        pad_token_id: fills packed rows.
        negatives: number of negatives per user; 0 for SFT.
        token_budget: tokens of a packed row; None packs a batch into one row.
        row_multiple: packed rows are padded to a multiple of it.
        folds: [rows] fold in which each row is held out, for hints; None without them.
        hint_dropout: share of rows whose hints are left out, drawn anew every epoch.
        hint_item_dropout: share of the other rows' candidates whose hints are left out, likewise.
        seed: of these draws.
        negative_sampler: which items become negatives; None draws them uniformly.
    """

    rows: TrainingRows
    candidates: TrainingCandidates
    encoder: Encoder
    pad_token_id: int
    negatives: int
    token_budget: int | None = None
    row_multiple: int = 1
    folds: np.ndarray | None = None
    hint_dropout: float = 0.0
    hint_item_dropout: float = 0.0
    seed: int = 0
    negative_sampler: NegativeSampler | None = None

    def __call__(self, epoch: int, rows: Sequence[int]) -> Batch:
        """The batch of these training rows with the epoch's candidates and negatives."""
        histories = [self.rows.history(row) for row in rows]
        targets = [int(self.rows.targets[row]) for row in rows]
        rejected = [self._negatives(epoch, row) for row in rows]
        candidates = [self.candidates.draw(row, epoch) for row in rows]
        users = self.encoder.encode(
            histories,
            candidates,
            responses=[(target, *items) for target, items in zip(targets, rejected, strict=True)],
            folds=None if self.folds is None else [int(self.folds[row]) for row in rows],
            hidden=self._hidden(epoch, rows, [len(items) for items in candidates]),
        )
        return Batch(
            packed=pack_responses(
                users.prompts,
                users.responses,
                self.pad_token_id,
                self.token_budget,
                self.row_multiple,
                users.markers,
                users.is_pointwise,
            ),
            chosen_items=torch.tensor(targets),
            rejected_items=torch.tensor(rejected, dtype=torch.long).view(len(rows), self.negatives),
            history_items=pad_sequences(histories),
            seen_items=pad_sequences([self.rows.seen_by_user_of(row).tolist() for row in rows]),
            keys=tuple((epoch, row) for row in rows),
        )

    def with_all_candidates(self) -> BatchMaker:
        """The same, with all of a row's candidates as responses, in the order of their draw."""
        return replace(self, negatives=self.candidates.num_negatives, negative_sampler=None)

    def _negatives(self, epoch: int, row: int) -> list[int]:
        if self.negatives and self.negative_sampler is not None:
            return self.negative_sampler(self.candidates, epoch, row, self.negatives)
        return self.candidates.negatives(row, epoch, self.negatives) if self.negatives else []

    def _hidden(
        self, epoch: int, rows: Sequence[int], sizes: Sequence[int]
    ) -> list[np.ndarray] | None:
        """Candidates whose hints are left out, bool [k] of each row; None if dropout is off."""
        if not (self.hint_dropout or self.hint_item_dropout):
            return None
        hidden = []
        for row, size in zip(rows, sizes, strict=True):
            # A stream of its own: the row's candidates are drawn from [seed, epoch, row].
            generator = np.random.default_rng([self.seed, epoch, row, _HINT_DROPOUT])
            if generator.random() < self.hint_dropout:
                hidden.append(np.ones(size, dtype=bool))
            else:
                hidden.append(generator.random(size) < self.hint_item_dropout)
        return hidden

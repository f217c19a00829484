"""Self-play: negatives are the policy's own wrong answers (SPRec, arXiv 2412.09243).

The run is cut into equal parts, the rounds. At the start of a round the policy, as it is then,
scores all candidates of every training row that the round will visit. Rank 0's checkpoints hold the
scores of the round that they are in, so that a resumed run draws the same negatives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raypo.data.candidates import TrainingCandidates
from raypo.errors import StoppedRun
from raypo.io.progress import Progress
from raypo.training.batches import Batch, BatchMaker
from raypo.training.engine import Engine
from raypo.training.reference import PrecomputedReference, compute_reference
from raypo.training.sampler import BatchSampler

_FILE = "self-play-round-{}.safetensors"


class SelfPlay:
    """Scores of candidates by the policy that the current round began with.

    Attributes:
        round: the current one, from 0.
    """

    def __init__(self, rounds: int, sampler: BatchSampler, make_batch: BatchMaker) -> None:
        """Plan the rounds; `start` gives the first one's scores.

        Args:
            rounds: equal parts of the run, at most its steps.
            sampler: of the whole run.
            make_batch: turns rows into batches with all candidates as responses.
        """
        self.round = 0
        self._rounds = rounds
        self._sampler = sampler
        self._make_batch = make_batch
        self._scores = PrecomputedReference({})

    def __call__(self, epoch: int, row: int, items: np.ndarray) -> np.ndarray:
        """Log-probs [m] of all the row's candidates but the target, in the order of their draw."""
        logps: np.ndarray = self._scores.of((epoch, row))[1:].double().numpy()
        return logps

    def round_of(self, step: int) -> int:
        """The round that an optimiser step is in."""
        return step * self._rounds // self._sampler.total_steps

    def steps_of(self, number: int) -> range:
        """Optimiser steps of a round."""
        total = self._sampler.total_steps
        return range(-(-number * total // self._rounds), -(-(number + 1) * total // self._rounds))

    def start(self, scores: PrecomputedReference, number: int = 0) -> None:
        """Begin a round with these scores.

        Raises:
            StoppedRun: one is not finite.
        """
        if not scores.is_finite:
            raise StoppedRun(
                f"self-play, round {number + 1}: the policy's log-probs of candidates are not "
                "finite; lower optimiser.learning_rate"
            )
        self.round, self._scores = number, scores

    def before_step(self, step: int, engine: Engine, rank: int, progress: Progress) -> None:
        """Score the candidates anew where a round begins. A collective: every rank calls it.

        Args:
            step: optimiser step that is about to be taken.
            engine: holds the policy.
            rank: rank of this process.
            progress: called with the steps that are scored.
        """
        number = self.round_of(step)
        if number == self.round:
            return
        note = f"scoring candidates for round {number + 1} of {self._rounds}"
        steps = self.steps_of(number)
        scores = compute_reference(
            engine, self._sampler, self._make_batch, rank, progress, steps, note
        )
        self.start(scores, number)

    def files(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps of the round: tensors by the name of their file."""
        return {_FILE.format(self.round): self._scores.tensors()}

    def load(self, checkpoint: Path, step: int) -> None:
        """Restore the round that a run was in after `step` steps.

        Raises:
            InputError: the checkpoint's file is missing or damaged.
        """
        number = self.round_of(max(step - 1, 0))
        self.start(PrecomputedReference.load(checkpoint / _FILE.format(number)), number)


class CandidateReference:
    """Reference log-probs of whichever candidates become negatives, round after round."""

    def __init__(self, scores: PrecomputedReference, candidates: TrainingCandidates) -> None:
        """Read the scores of all candidates.

        Args:
            scores: by the reference policy, of the target and all other candidates.
            candidates: of the training rows.
        """
        self._scores = scores
        self._candidates = candidates

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""
        rows = []
        for key, rejected in zip(batch.keys, batch.rejected_items.tolist(), strict=True):
            epoch, row = key
            listed = self._candidates.negatives(row, epoch, self._candidates.num_negatives)
            places = [0, *(1 + listed.index(item) for item in rejected)]
            rows.append(self._scores.of(key)[places])
        logps = torch.stack(rows)
        return logps[:, 0], logps[:, 1:]

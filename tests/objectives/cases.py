"""Random global batches in NumPy, and the same as a rank's PreferenceBatch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raypo.objectives import PreferenceBatch


@dataclass
class Case:
    """A global batch in NumPy."""

    chosen: np.ndarray  # [b]
    rejected: np.ndarray  # [b, n]
    reference_chosen: np.ndarray
    reference_rejected: np.ndarray
    chosen_lengths: np.ndarray
    rejected_lengths: np.ndarray
    embeddings: np.ndarray  # [b, d]
    chosen_items: np.ndarray
    rejected_items: np.ndarray
    history: np.ndarray  # [b, h], -1 padded
    scores: np.ndarray  # [b, items]: s(u, y)


def make_case(seed: int, b: int = 6, n: int = 3, items: int = 12, h: int = 3) -> Case:
    """Values are exact in float32, so that float64 and float32 read the same numbers."""
    r = np.random.default_rng(seed)

    def normal(mean, std, *shape):
        return r.normal(mean, std, shape).astype(np.float32).astype(np.float64)

    return Case(
        chosen=normal(-6, 2, b),
        rejected=normal(-7, 2, b, n),
        reference_chosen=normal(-6, 2, b),
        reference_rejected=normal(-7, 2, b, n),
        chosen_lengths=r.integers(2, 9, b),
        rejected_lengths=r.integers(2, 9, (b, n)),
        embeddings=normal(0, 1, b, 4),
        chosen_items=r.integers(0, items, b),
        rejected_items=r.integers(0, items, (b, n)),
        history=np.where(r.random((b, h)) < 0.3, -1, r.integers(0, items, (b, h))),
        scores=np.tanh(normal(0, 1, b, items)).astype(np.float32).astype(np.float64),
    )


def batch_of(
    case: Case, rows: slice = slice(None), requires_grad: bool = True, **changes
) -> PreferenceBatch:
    """Some rows of a case as one rank's batch."""

    def tensor(values, kind=torch.float32):
        return torch.tensor(values[rows], dtype=kind)

    table = torch.tensor(case.scores, dtype=torch.float32)
    users = torch.tensor(case.embeddings, dtype=torch.float32)

    def item_scores(embeddings, items):
        # The recommender is a table of scores: find the row of each embedding.
        own = (embeddings[:, None] == users[None]).all(-1).int().argmax(1)
        return table[own[:, None], items]

    fields = {
        "chosen_logps": tensor(case.chosen).requires_grad_(requires_grad),
        "rejected_logps": tensor(case.rejected).requires_grad_(requires_grad),
        "chosen_lengths": tensor(case.chosen_lengths, torch.long),
        "rejected_lengths": tensor(case.rejected_lengths, torch.long),
        "reference_chosen_logps": tensor(case.reference_chosen),
        "reference_rejected_logps": tensor(case.reference_rejected),
        "user_embeddings": tensor(case.embeddings),
        "chosen_items": tensor(case.chosen_items, torch.long),
        "rejected_items": tensor(case.rejected_items, torch.long),
        "history_items": tensor(case.history, torch.long),
        "item_scores": item_scores,
    }
    return PreferenceBatch(**(fields | changes))

"""The objectives once more, in plain float64 loops, written from the papers' formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


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
    r = np.random.default_rng(seed)
    return Case(
        chosen=r.normal(-6, 2, b),
        rejected=r.normal(-7, 2, (b, n)),
        reference_chosen=r.normal(-6, 2, b),
        reference_rejected=r.normal(-7, 2, (b, n)),
        chosen_lengths=r.integers(2, 9, b),
        rejected_lengths=r.integers(2, 9, (b, n)),
        embeddings=r.normal(size=(b, 4)),
        chosen_items=r.integers(0, items, b),
        rejected_items=r.integers(0, items, (b, n)),
        history=np.where(r.random((b, h)) < 0.3, -1, r.integers(0, items, (b, h))),
        scores=np.tanh(r.normal(size=(b, items))),
    )


def negative_sets(case: Case, rho: float, mask: bool, cosine: bool) -> list[list[tuple[int, int]]]:
    """E_u as (user, position) pairs."""
    b, n = case.rejected.shape
    k = math.floor((b - 1) * rho)
    e = case.embeddings
    if cosine:
        e = e / np.linalg.norm(e, axis=1, keepdims=True)
    sets = []
    for u in range(b):
        others = sorted((v for v in range(b) if v != u), key=lambda v: (-float(e[u] @ e[v]), v))
        members = [(u, i) for i in range(n)]
        for v in others[:k]:
            for i in range(n):
                item = case.rejected_items[v, i]
                if mask and (item == case.chosen_items[u] or item in case.history[u]):
                    continue
                members.append((v, i))
        sets.append(members)
    return sets


def minus_log_sigmoid(z: float) -> float:
    return math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))


def softmax_loss(r_chosen: float, r_rejected: list[float], gamma: float) -> float:
    gaps = [r - r_chosen for r in r_rejected]
    top = max(gaps)
    lse = top + math.log(sum(math.exp(g - top) for g in gaps))
    return minus_log_sigmoid(-lse - gamma)


def s_dpo(case: Case, beta: float) -> float:
    losses = []
    for u in range(len(case.chosen)):
        rc = beta * (case.chosen[u] - case.reference_chosen[u])
        rr = beta * (case.rejected[u] - case.reference_rejected[u])
        losses.append(softmax_loss(rc, list(rr), 0.0))
    return float(np.mean(losses))


@dataclass
class NapoResult:
    loss: float
    gamma: float
    confidence: float
    sizes: list[int]


def napo(
    case: Case,
    beta: float = 1.0,
    gamma: float = 1.0,
    alpha: float = 0.3,
    rho: float = 0.7,
    baseline: float | None = None,
    mask: bool = True,
    cosine: bool = False,
    normalised: bool = False,
    dynamic: bool = True,
) -> NapoResult:
    sets = negative_sets(case, rho, mask, cosine)
    confidences = [
        (1 - case.scores[u, case.rejected_items[v, i]]) / 2
        for u, members in enumerate(sets)
        for v, i in members
    ]
    c = float(np.mean(confidences))
    r0 = c if baseline is None else baseline
    margin = (1 + alpha * (c - r0)) * gamma if dynamic else gamma
    losses = []
    for u, members in enumerate(sets):
        chosen = case.chosen[u] / (case.chosen_lengths[u] if normalised else 1)
        rejected = [
            case.rejected[v, i] / (case.rejected_lengths[v, i] if normalised else 1)
            for v, i in members
        ]
        losses.append(softmax_loss(beta * chosen, [beta * r for r in rejected], margin))
    return NapoResult(float(np.mean(losses)), margin, c, [len(m) for m in sets])

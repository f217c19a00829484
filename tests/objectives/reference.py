"""The objectives once more, in plain float64 loops, written from the papers' formulas.

Each function takes a case and what the formula stops the gradient of (`kept`): empty on the first
call, which fills it, and handed back for finite differences, so that they differentiate what the
formula differentiates.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.objectives.cases import Case


def minus_log_sigmoid(z: float) -> float:
    return math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))


def log_sum_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def negative_sets(
    case: Case, rho: float = 0.0, mask: bool = True, cosine: bool = False
) -> list[list[tuple[int, int]]]:
    """E_u as (user, position) pairs."""
    b, n = case.rejected.shape
    k = math.floor((b - 1) * rho + 1e-9)
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


# Rewards, before beta: R+ of a user and R- of a (user, position) pair.


def reference_reward(case: Case):
    return (
        lambda u: case.chosen[u] - case.reference_chosen[u],
        lambda v, i: case.rejected[v, i] - case.reference_rejected[v, i],
    )


def free_reward(case: Case):
    return (lambda u: case.chosen[u], lambda v, i: case.rejected[v, i])


def normalised_reward(case: Case):
    return (
        lambda u: case.chosen[u] / case.chosen_lengths[u],
        lambda v, i: case.rejected[v, i] / case.rejected_lengths[v, i],
    )


def likelihood_reward(case: Case):
    plus, minus = normalised_reward(case)
    return (lambda u: math.exp(plus(u)), lambda v, i: math.exp(minus(v, i)))


# The objectives.


def dpo(case, kept, beta=0.1):
    plus, minus = reference_reward(case)
    b, n = case.rejected.shape
    return float(
        np.mean(
            [
                np.mean([minus_log_sigmoid(beta * (plus(u) - minus(u, i))) for i in range(n)])
                for u in range(b)
            ]
        )
    )


def simpo(case, kept, beta=2.0, gamma=1.0):
    plus, minus = normalised_reward(case)
    b, n = case.rejected.shape
    pairs = [
        minus_log_sigmoid(beta * plus(u) - beta * minus(u, i) - gamma)
        for u in range(b)
        for i in range(n)
    ]
    return float(np.mean(pairs))


def softmax_objective(case, reward, sets, beta, margin):
    plus, minus = reward(case)
    losses = [
        minus_log_sigmoid(
            -log_sum_exp([beta * minus(v, i) - beta * plus(u) for v, i in members]) - margin
        )
        for u, members in enumerate(sets)
    ]
    return float(np.mean(losses))


def s_dpo(case, kept, beta=1.0):
    return softmax_objective(case, reference_reward, negative_sets(case), beta, 0.0)


def s_dpo_ns(case, kept, beta=1.0, rho=0.7, mask=True, cosine=False):
    sets = negative_sets(case, rho, mask, cosine)
    return softmax_objective(case, reference_reward, sets, beta, 0.0)


def sims_dpo(case, kept, beta=1.0, gamma=0.0, normalised=False):
    reward = normalised_reward if normalised else free_reward
    return softmax_objective(case, reward, negative_sets(case), beta, gamma)


def dmpo(case, kept, beta=1.0):
    plus, minus = reference_reward(case)
    b, n = case.rejected.shape
    losses = [
        minus_log_sigmoid(beta * plus(u) - np.mean([beta * minus(u, i) for i in range(n)]))
        for u in range(b)
    ]
    return float(np.mean(losses))


def mppo(case, kept, beta=1.0):
    plus, minus = likelihood_reward(case)
    b, n = case.rejected.shape
    losses = [
        minus_log_sigmoid(beta * (n * plus(u) - sum(minus(u, i) for i in range(n))))
        for u in range(b)
    ]
    return float(np.mean(losses))


def alpha_dpo(case, kept, beta=2.0, gamma=1.0, alpha=0.1, mean=None, std=None):
    plus, minus = normalised_reward(case)
    b, n = case.rejected.shape
    if "margins" not in kept:
        moved = np.array(
            [
                [
                    beta
                    * (
                        (case.chosen[u] - case.reference_chosen[u]) / case.chosen_lengths[u]
                        - (case.rejected[u, i] - case.reference_rejected[u, i])
                        / case.rejected_lengths[u, i]
                    )
                    for i in range(n)
                ]
                for u in range(b)
            ]
        )
        kept["mean"], kept["std"] = float(moved.mean()), float(moved.std())
        mu = kept["mean"] if mean is None else mean
        sigma = kept["std"] if std is None else std
        kept["margins"] = gamma + alpha * (moved - mu) / sigma
    pairs = [
        minus_log_sigmoid(beta * (plus(u) - minus(u, i)) - kept["margins"][u, i])
        for u in range(b)
        for i in range(n)
    ]
    return float(np.mean(pairs))


def beta_dpo(case, kept, beta=0.1, alpha=0.6, baseline=None):
    plus, minus = reference_reward(case)
    b, n = case.rejected.shape
    if "beta" not in kept:
        margins = [beta * (plus(u) - minus(u, i)) for u in range(b) for i in range(n)]
        kept["mean"] = float(np.mean(margins))
        before = kept["mean"] if baseline is None else baseline
        kept["beta"] = max(1e-3, (1 + alpha * (kept["mean"] - before)) * beta)
    pairs = [
        minus_log_sigmoid(kept["beta"] * (plus(u) - minus(u, i)))
        for u in range(b)
        for i in range(n)
    ]
    return float(np.mean(pairs))


def rosepo(case, kept, beta=0.1, eps_max=0.4, tau=1.0):
    plus, minus = reference_reward(case)
    b, n = case.rejected.shape
    losses = []
    for u in range(b):
        for i in range(n):
            liked = case.scores[u, case.rejected_items[u, i]]
            target = case.scores[u, case.chosen_items[u]]
            eps = eps_max / (1 + math.exp(-(liked - target) / tau))
            z = beta * (plus(u) - minus(u, i))
            losses.append((1 - eps) * minus_log_sigmoid(z) + eps * minus_log_sigmoid(-z))
    return float(np.mean(losses))


def napo_margin(case, kept, sets, gamma, alpha, baseline):
    if "gamma" not in kept:
        confidences = [
            (1 - case.scores[u, case.rejected_items[v, i]]) / 2
            for u, members in enumerate(sets)
            for v, i in members
        ]
        kept["confidence"] = float(np.mean(confidences))
        before = kept["confidence"] if baseline is None else baseline
        kept["gamma"] = (1 + alpha * (kept["confidence"] - before)) * gamma
    return kept["gamma"]


def napo(
    case,
    kept,
    beta=1.0,
    gamma=1.0,
    alpha=0.3,
    rho=0.7,
    baseline=None,
    mask=True,
    cosine=False,
    normalised=False,
    dynamic=True,
):
    sets = negative_sets(case, rho, mask, cosine)
    kept["sizes"] = [len(members) for members in sets]
    margin = napo_margin(case, kept, sets, gamma, alpha, baseline) if dynamic else gamma
    reward = normalised_reward if normalised else free_reward
    return softmax_objective(case, reward, sets, beta, margin)


def instance_distances(case, sets, beta=1.0):
    """alpha-DPO's M of each pair of a user and a negative of E_u."""

    def moved(logp, reference, length):
        return (logp - reference) / length

    return [
        [
            beta
            * (
                moved(case.chosen[u], case.reference_chosen[u], case.chosen_lengths[u])
                - moved(
                    case.rejected[v, i], case.reference_rejected[v, i], case.rejected_lengths[v, i]
                )
            )
            for v, i in members
        ]
        for u, members in enumerate(sets)
    ]


def napo_with_instance_margin(
    case, kept, rho=0.7, gamma=1.0, alpha=0.3, instance_alpha=0.1, mean_of_both=False,
    baseline=None, mean=None, std=None,
):  # fmt: skip
    """NAPO-1, and with `mean_of_both` NAPO-2."""
    sets = negative_sets(case, rho)
    if "margins" not in kept:
        distances = instance_distances(case, sets)
        every = [each for own in distances for each in own]
        kept["mean"], kept["std"] = float(np.mean(every)), float(np.std(every))
        center = kept["mean"] if mean is None else mean
        width = kept["std"] if std is None else std
        kept["margins"] = [
            [gamma + instance_alpha * (each - center) / width for each in own] for own in distances
        ]
        if mean_of_both:
            of_batch: dict = {}
            batch_margin = napo_margin(case, of_batch, sets, gamma, alpha, baseline)
            kept["confidence"] = of_batch["confidence"]
            kept["margins"] = [
                [(each + batch_margin) / 2 for each in own] for own in kept["margins"]
            ]
    plus, minus = free_reward(case)
    losses = [
        minus_log_sigmoid(
            -log_sum_exp(
                [minus(v, i) - plus(u) + own for (v, i), own in zip(members, margins, strict=True)]
            )
        )
        for u, (members, margins) in enumerate(zip(sets, kept["margins"], strict=True))
    ]
    return float(np.mean(losses))


# DynamicPO.


def squares(values) -> float:
    return float(np.sum((np.array(values) - np.mean(values)) ** 2)) if len(values) else 0.0


def highest_cluster(values: list[float]) -> set[int]:
    """Positions in the cluster of highest centroid, by trying every assignment of distinct values
    to contiguous clusters."""
    distinct = sorted(set(values), reverse=True)
    clusters = min(3, len(distinct))
    best, top = math.inf, distinct
    for cuts in itertools.combinations(range(1, len(distinct)), clusters - 1):
        edges = [0, *cuts, len(distinct)]
        groups = [distinct[a:b] for a, b in itertools.pairwise(edges)]
        cost = sum(squares([v for v in values if v in group]) for group in groups)
        if cost < best:
            best, top = cost, groups[0]
    return {i for i, value in enumerate(values) if value in top}


def boundary(case, u, members, stages) -> set[int]:
    """B as positions in E_u."""
    values = [float(case.rejected[v, i]) for v, i in members]
    violating = {j for j, value in enumerate(values) if value > case.chosen[u]}
    if stages == "all" or not members:
        return set(range(len(members)))
    if stages.startswith("top-"):
        order = sorted(range(len(values)), key=lambda j: (-values[j], j))
        return set(order[: int(stages[4:])])
    if violating and stages in ("boundary", "violations"):
        return violating
    return set(range(len(members))) if stages == "violations" else highest_cluster(values)


def betas(case, u, members, chosen_ones, beta, alpha, gamma) -> dict[int, float]:
    easy = [j for j in range(len(members)) if j not in chosen_ones] or list(range(len(members)))
    mean = np.mean([case.rejected[members[j]] for j in easy])
    answer = {}
    for j in chosen_ones:
        value = case.rejected[members[j]]
        dp, dn = case.chosen[u] - value, value - mean
        size = abs(dp) + abs(dn)
        answer[j] = beta * (1 + alpha * math.tanh((dp - dn - gamma) / size)) if size else beta
    return answer


def dynamicpo(
    case, kept, over, beta=1.0, alpha=0.5, gamma=6.0, stages="boundary", dynamic=True, sets=None,
    margin=0.0,
):  # fmt: skip
    sets = negative_sets(case) if sets is None else sets
    if "betas" not in kept:
        kept["betas"] = []
        for u, members in enumerate(sets):
            chosen_ones = boundary(case, u, members, stages)
            fixed = dict.fromkeys(chosen_ones, beta)
            varied = betas(case, u, members, chosen_ones, beta, alpha, gamma)
            kept["betas"].append(varied if dynamic else fixed)
    rewards = {"mppo": likelihood_reward, "napo": free_reward}
    plus, minus = rewards.get(over, reference_reward)(case)
    losses = []
    for u, members in enumerate(sets):
        margins = [by * (plus(u) - minus(*members[j])) for j, by in kept["betas"][u].items()]
        if over == "dmpo":
            losses.append(minus_log_sigmoid(float(np.mean(margins))))
        elif over == "mppo":
            losses.append(minus_log_sigmoid(sum(margins)))
        else:
            losses.append(minus_log_sigmoid(-log_sum_exp([-value for value in margins]) - margin))
    return float(np.mean(losses))


def dynamic_napo(
    case, kept, rho=0.7, gamma=1.0, boundary_alpha=0.5, boundary_gamma=6.0, dynamic=True
):
    sets = negative_sets(case, rho)
    margin = napo_margin(case, kept, sets, gamma, 0.3, None)
    return dynamicpo(
        case, kept, "napo", 1.0, boundary_alpha, boundary_gamma, "boundary", dynamic, sets, margin
    )


def numeric_gradient(loss_of, case: Case, field: str) -> np.ndarray:
    """Central differences of `loss_of(case)` in each value of a field."""
    values = getattr(case, field)
    gradient = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        kept = values[index]
        values[index] = kept + 1e-5
        above = loss_of(case)
        values[index] = kept - 1e-5
        gradient[index] = (above - loss_of(case)) / 2e-5
        values[index] = kept
    return gradient

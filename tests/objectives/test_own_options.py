"""Options of raypo's own: seen items are no negatives, rank confidence, a margin per negative."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from raypo.objectives import build_objective, compose_objective
from tests.objectives.cases import batch_of, make_case
from tests.objectives.reference import minus_log_sigmoid, negative_sets


def with_ranks(case, **changes):
    """A rank's batch whose recommender gives ranks too: the share of items that score below."""
    batch = batch_of(case, **changes)

    def item_ranks(embeddings, items):
        own, everything = (
            batch.item_scores(embeddings, ids)
            for ids in (items, torch.arange(case.scores.shape[1]).expand(len(items), -1))
        )
        return (everything[:, None] < own[:, :, None]).double().mean(dim=2)

    return replace(batch, item_ranks=item_ranks)


def confidence_of(case, kind):
    if kind == "cosine":
        return lambda u, item: (1 - case.scores[u, item]) / 2
    return lambda u, item: 1 - float(np.mean(case.scores[u] < case.scores[u, item]))


def napo_loss(case, kind, scope, alpha, gamma, baseline):
    """The formula of docs/objectives.md in float64, with its margins."""
    confidence = confidence_of(case, kind)
    sets = negative_sets(case, 0.7, True, False)
    values = [
        [confidence(u, case.rejected_items[v, i]) for v, i in own] for u, own in enumerate(sets)
    ]
    mean = float(np.mean([value for own in values for value in own]))
    before = mean if baseline is None else baseline
    losses = []
    for u, own in enumerate(sets):
        exponents = []
        for (v, i), value in zip(own, values[u], strict=True):
            moved = (value if scope == "negative" else mean) - before
            margin = (1 + alpha * moved) * gamma
            exponents.append(case.rejected[v, i] - case.chosen[u] + margin)
        losses.append(minus_log_sigmoid(-math.log(sum(math.exp(one) for one in exponents))))
    return float(np.mean(losses)), mean


@pytest.mark.parametrize("kind", ["cosine", "rank"])
@pytest.mark.parametrize("scope", ["batch", "negative"])
@pytest.mark.parametrize("baseline", [None, 0.3])
def test_margins_follow_the_formula(kind, scope, baseline):
    case = make_case(seed=4, b=6, n=3)
    options = {"confidence": kind, "margin_scope": scope, "alpha": 1.5, "gamma": 0.8}
    objective = build_objective("napo", confidence_start=baseline, **options)
    out = objective(with_ranks(case))
    expected, mean = napo_loss(case, kind, scope, 1.5, 0.8, baseline)
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    assert out.metrics["confidence"] == pytest.approx(mean, rel=1e-6)
    start = mean if baseline is None else baseline
    assert objective.confidence_baseline == pytest.approx(0.9 * start + 0.1 * mean, rel=1e-6)


def test_the_direction_of_the_confidence_is_the_same_by_score_and_by_rank():
    """The lower the recommender scores a negative, the surer it is, and the larger the margin."""
    case = make_case(seed=1)
    by_score, by_rank = (confidence_of(case, kind) for kind in ("cosine", "rank"))
    order = np.argsort(case.scores[0])
    assert np.all(np.diff([by_score(0, item) for item in order]) <= 0)
    assert np.all(np.diff([by_rank(0, item) for item in order]) <= 0)


def test_ranks_are_needed_where_they_are_asked_for():
    with pytest.raises(ValueError, match="needs item_ranks"):
        build_objective("napo", confidence="rank")(batch_of(make_case(seed=1)))


def test_a_margin_of_each_negative_cannot_be_merged():
    with pytest.raises(ValueError, match="margin 'napo' belongs to each pair here"):
        compose_objective(
            reward="free", aggregation="merged", margin={"kind": "napo", "margin_scope": "negative"}
        )


def test_items_that_the_user_saw_in_training_are_no_negatives():
    case = make_case(seed=2, b=5, n=3)
    nobody = torch.full((5, 4), -1)
    options = {"rho": 1.0}
    without = build_objective("napo", **options)(batch_of(case))
    empty = build_objective("napo", **options)(batch_of(case, seen_items=nobody))
    assert empty.metrics == without.metrics
    # User 0 is known to have chosen everything that was sampled for user 3.
    seen = nobody.clone()
    seen[0, :3] = torch.tensor(case.rejected_items[3])
    masked = build_objective("napo", **options)(batch_of(case, seen_items=seen))
    before = [set(members) for members in negative_sets(case, 1.0, True, False)]
    seen_items = set(case.rejected_items[3].tolist())
    lost = [(v, i) for v, i in before[0] if v != 0 and case.rejected_items[v, i] in seen_items]
    assert lost
    expected = without.metrics["negatives"] - len(lost) / 5
    assert masked.metrics["negatives"] == pytest.approx(expected)
    kept = build_objective("napo", mask_collisions=False, **options)
    assert kept(batch_of(case, seen_items=seen)).metrics["negatives"] == 15


def test_a_users_own_negatives_are_never_masked():
    case = make_case(seed=2, b=4, n=3)
    seen = torch.tensor(case.rejected_items)
    out = build_objective("napo", rho=1.0)(batch_of(case, seen_items=seen))
    assert out.metrics["negatives"] >= 3

"""Negatives have the probabilities that their sources give, and are the same again."""

from collections import Counter
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from raypo.data.candidates import TrainingCandidates
from raypo.data.title_similarity import title_vectors
from raypo.data.training_rows import TrainingRows
from raypo.recommenders.build import build_recommender
from raypo.recommenders.hint_sources import unit_item_vectors
from raypo.training.negative_sampling import (
    NegativeSampler,
    Source,
    item_similarity,
    popular_scores,
    recommender_scores,
    title_similarity,
    uniform_scores,
)

NUM_ITEMS = 40
DRAWS = 20000
ROWS = TrainingRows.of_frame(
    pd.DataFrame(
        {
            "user_id": [0, 0, 1, 2],
            "history": [[1, 2, 3], [1, 2, 3, 4], [9], [5, 6]],
            "target": [4, 7, 8, 10],
        }
    )
)
ITEMS = np.array([11, 30, 12, 25, 17])


def fixed(scores):
    """Scores of ITEMS, whatever the row."""
    return lambda epoch, row, items: np.array(scores)


def weights_of(scores, temperature, left):
    """Probability of each of the items that are left, in plain float64."""
    powers = {i: np.exp(np.float64(scores[i]) / temperature) for i in left}
    return {i: power / sum(powers.values()) for i, power in powers.items()}


def exact_pairs(sources):
    """Probability of each ordered pair of negatives; sources are (share, scores, temperature)."""
    found = {}
    for first, second in permutations(range(len(ITEMS)), 2):
        steps, left = [], set(range(len(ITEMS)))
        for item in (first, second):
            steps.append(
                sum(share * weights_of(scores, t, left)[item] for share, scores, t in sources)
            )
            left.remove(item)
        found[ITEMS[first], ITEMS[second]] = steps[0] * steps[1]
    return found


def agrees(sampler, expected):
    """Whether drawn pairs have the expected probabilities, by a chi-square test."""
    drawn = Counter(tuple(sampler.draw(epoch, 0, ITEMS, 2)) for epoch in range(DRAWS))
    assert sum(expected.values()) == pytest.approx(1)
    observed = [drawn[pair] for pair in expected]
    assert sum(observed) == DRAWS
    return chisquare(observed, [DRAWS * p for p in expected.values()]).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_one_source_draws_by_a_softmax_without_replacement(temperature):
    scores = [0.1, -0.2, 0.3, 0.0, 0.25]
    sampler = NegativeSampler((Source("similar", 1.0, fixed(scores), temperature),), seed=1)
    assert agrees(sampler, exact_pairs([(1.0, scores, temperature)]))
    other = exact_pairs([(1.0, scores, 2 * temperature)])
    assert not agrees(sampler, other)  # the test can tell


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_popular_negatives_are_drawn_in_proportion_to_popularity(exponent):
    popularity = np.arange(NUM_ITEMS) * 3 + 1
    source = Source("popular", 1.0, popular_scores(popularity, exponent))
    scores = exponent * np.log(popularity[ITEMS].astype(np.float64))
    assert agrees(NegativeSampler((source,), seed=2), exact_pairs([(1.0, scores, 1.0)]))


def test_an_item_that_nobody_chose_is_drawn_only_where_no_other_is_left():
    popularity = np.zeros(NUM_ITEMS)
    popularity[[12, 25]] = 3, 1
    sampler = NegativeSampler((Source("popular", 1.0, popular_scores(popularity, 1.0)),), seed=0)
    rest = Counter()
    for epoch in range(3000):
        drawn = sampler.draw(epoch, 0, ITEMS, 3)
        assert set(drawn[:2]) == {12, 25}
        rest[drawn[2]] += 1
    assert chisquare([rest[item] for item in (11, 30, 17)]).pvalue > 1e-3


def test_a_mixture_draws_the_source_of_each_negative():
    close, hard = [0.5, 0.1, 0.0, -0.3, 0.2], [-3.0, -1.0, -2.0, -1.5, -4.0]
    sampler = NegativeSampler(
        (
            Source("similar", 0.5, fixed(close), 0.3),
            Source("self-play", 0.3, fixed(hard), 1.0),
            Source("uniform", 0.2, uniform_scores()),
        ),
        seed=4,
    )
    parts = [(0.5, close, 0.3), (0.3, hard, 1.0), (0.2, [0.0] * 5, 1.0)]
    assert agrees(sampler, exact_pairs(parts))
    assert sampler.metrics() == {
        "negative_sampling/similar": 0.5,
        "negative_sampling/self-play": 0.3,
        "negative_sampling/uniform": 0.2,
    }


def test_temperature_zero_takes_the_highest_scores_in_order():
    sampler = NegativeSampler((Source("recommender", 1.0, fixed([3, 5, 1, 4, 2]), 0.0),), seed=0)
    assert sampler.draw(0, 0, ITEMS, 3) == [30, 25, 11]


def test_scores_far_below_the_highest_do_not_underflow():
    sampler = NegativeSampler(
        (Source("self-play", 1.0, fixed([0, -1e4, -2e4, -2e4 - 1, -3e4]), 1.0),), seed=0
    )
    drawn = Counter(tuple(sampler.draw(epoch, 0, ITEMS, 5)) for epoch in range(2000))
    assert set(drawn) == {(11, 30, 12, 25, 17), (11, 30, 25, 12, 17)}
    share = drawn[11, 30, 12, 25, 17] / 2000
    assert share == pytest.approx(np.e / (1 + np.e), abs=0.04)


def test_uniform_negatives_are_the_first_of_the_candidates():
    candidates = TrainingCandidates(ROWS, NUM_ITEMS, 20, seed=3)
    sampler = NegativeSampler((Source("uniform", 1.0, uniform_scores()),), seed=3)
    for epoch in range(20):
        for row in range(4):
            assert sampler(candidates, epoch, row, 3) == candidates.negatives(row, epoch, 3)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
    row=st.integers(0, 3),
    count=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 1e-6, 0.1, 10.0]),
    pool=st.sampled_from(["candidates", "catalogue"]),
)
def test_negatives_are_distinct_unseen_and_of_their_pool(
    seed, epoch, row, count, temperature, pool
):
    candidates = TrainingCandidates(ROWS, NUM_ITEMS, 10, seed)
    vectors = np.random.default_rng(seed).normal(size=(NUM_ITEMS, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    popularity = np.random.default_rng(seed).integers(0, 4, NUM_ITEMS)
    sources = (
        Source("similar", 0.5, item_similarity(vectors, ROWS), temperature),
        Source("popular", 0.5, popular_scores(popularity, 1.0)),
    )
    sampler = NegativeSampler(sources, seed, pool)
    drawn = sampler(candidates, epoch, row, count)
    assert drawn == sampler(candidates, epoch, row, count)
    assert len(set(drawn)) == count
    assert not set(drawn) & set(ROWS.seen_by_user_of(row).tolist())
    if pool == "candidates":
        assert set(drawn) <= set(candidates.draw(row, epoch)) - {int(ROWS.targets[row])}


def test_the_catalogue_has_every_unseen_item():
    candidates = TrainingCandidates(ROWS, NUM_ITEMS, 5, seed=0)
    sampler = NegativeSampler((Source("uniform", 1.0, uniform_scores()),), 0, "catalogue")
    drawn = Counter(sampler(candidates, epoch, 0, 1)[0] for epoch in range(4000))
    unseen = set(range(NUM_ITEMS)) - {1, 2, 3, 4, 7}
    assert set(drawn) == unseen
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def recommender(kind="sasrec"):
    torch.manual_seed(0)
    made = {"hidden": 8, "layers": 1, "heads": 1, "max_length": 10, "dropout": 0.0}
    return build_recommender({"kind": kind, **made}, NUM_ITEMS).eval().requires_grad_(False)


def test_similar_items_have_vectors_close_to_the_target():
    model = recommender()
    table = model.items.weight.double().numpy()
    target = table[4]
    cosines = table @ target / np.linalg.norm(table, axis=1) / np.linalg.norm(target)
    scores = item_similarity(unit_item_vectors(model), ROWS)
    assert scores(0, 0, ITEMS) == pytest.approx(cosines[ITEMS], abs=1e-6)


@pytest.mark.parametrize("kind", ["sasrec", "gru4rec"])
def test_the_recommenders_first_choices_are_those_of_the_whole_batch(kind):
    model = recommender(kind)
    histories = torch.tensor([[1, 2, 3, -1], [1, 2, 3, 4], [9, -1, -1, -1], [5, 6, -1, -1]])
    expected = model.score_all(model.embed(histories)).numpy()
    scores = recommender_scores(model, ROWS)
    sampler = NegativeSampler((Source("recommender", 1.0, scores, 0.0),), seed=0)
    candidates = TrainingCandidates(ROWS, NUM_ITEMS, 10, seed=0)
    for row in range(4):
        assert scores(0, row, ITEMS) == pytest.approx(expected[row, ITEMS], abs=1e-6)
        listed = candidates.negatives(row, 0, 9)
        best = sorted(listed, key=lambda item, row=row: -expected[row, item])[:3]
        assert sampler(candidates, 0, row, 3) == best


def test_similar_titles_share_words_or_parts_of_words():
    titles = ["Alien (1979)", "Aliens (1986)", "Heat (1995)", "Alien 3 (1992)", "(!)"]
    rows = TrainingRows.of_frame(
        pd.DataFrame({"user_id": [0], "history": [[2]], "target": [0], "timestamp": [0]})
    )
    scores = title_similarity(title_vectors(titles), rows)(0, 0, np.array([1, 2, 3, 4]))
    assert scores[2] > scores[0] > scores[1] > scores[3] == 0

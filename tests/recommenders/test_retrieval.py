"""Retrieval gives the best items that are allowed, of several scorers in turn."""

from functools import partial

import numpy as np
import pytest

from raypo.recommenders.retrieval import catalogue_scorer, rankable, retrieve

HISTORIES = [[0, 3], [5]]


def fixed(*scores):
    return lambda histories: np.array([scores] * len(histories), dtype=float)


def test_items_of_the_history_are_ranked_only_where_people_repeat():
    assert rankable(HISTORIES, 6).tolist() == [
        [False, True, True, False, True, True],
        [True, True, True, True, True, False],
    ]
    assert rankable(HISTORIES, 6, with_seen=True).all()


def test_scorers_give_their_best_in_turn_and_each_item_once():
    up, down = fixed(0, 1, 2, 3, 4, 5), fixed(5, 4, 3, 2, 1, 0)
    allowed = partial(rankable, num_items=6)
    assert retrieve([up], HISTORIES, allowed, 3) == [[5, 4, 2], [4, 3, 2]]
    assert retrieve([up, down], HISTORIES, allowed, 3) == [[5, 1, 4], [4, 0, 3]]
    # Fewer where no more are allowed.
    assert [sorted(one) for one in retrieve([up, down], HISTORIES, allowed, 9)] == [
        [1, 2, 4, 5],
        [0, 1, 2, 3, 4],
    ]


@pytest.mark.parametrize("source", ["popularity", "item-knn", "markov-chain", "recommender"])
def test_scores_of_the_catalogue_are_those_of_candidates(inputs, source):
    from raypo.data.dataset import load_dataset
    from raypo.recommenders.heuristics import heuristic_scores
    from raypo.recommenders.scoring import score_candidates
    from raypo.recommenders.train import load_recommender

    data, recommender, _ = inputs
    dataset = load_dataset(data)
    rows = dataset.test
    if source == "recommender":
        expected = score_candidates(load_recommender(recommender), rows)
        scorer = catalogue_scorer(recommender, dataset)
    else:
        expected = heuristic_scores(source, dataset, rows)
        scorer = catalogue_scorer(source, dataset)
    scores = scorer(list(rows["history"]))
    assert scores.shape == (len(rows), dataset.num_items)
    candidates = np.stack(rows["candidates"].to_list())
    found = np.take_along_axis(scores, candidates, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

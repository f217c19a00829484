"""TF-IDF vectors of titles."""

import math
from collections import Counter

import numpy as np
import pytest

from raypo.data.title_similarity import title_features, title_vectors

TITLES = ["Toy Story (1995)", "Toy Story 2 (1999)", "Amélie", "GoldenEye", "goldeneye GoldenEye"]


def test_vectors_give_the_cosines_of_smoothed_tf_idf():
    ours = title_vectors(TITLES)
    counts = [Counter(title_features(title)) for title in TITLES]
    titles_with = Counter(feature for each in counts for feature in each)
    weighted = [
        {name: n * (math.log(6 / (1 + titles_with[name])) + 1) for name, n in each.items()}
        for each in counts
    ]

    def cosine(one, other):
        product = sum(weight * other.get(name, 0) for name, weight in one.items())
        return product / math.hypot(*one.values()) / math.hypot(*other.values())

    expected = [[cosine(one, other) for other in weighted] for one in weighted]
    assert (ours @ ours.T).toarray() == pytest.approx(np.array(expected))
    assert np.linalg.norm(ours.toarray(), axis=1) == pytest.approx(np.ones(5))


def test_a_title_without_words_is_similar_to_none():
    vectors = title_vectors(["!!!", "Heat"])
    assert (vectors @ vectors.T).toarray() == pytest.approx(np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert title_vectors(["!!!"]).shape == (1, 1)

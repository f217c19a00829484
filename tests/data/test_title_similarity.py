"""TF-IDF vectors of titles."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from raypo.data.title_similarity import title_features, title_vectors

TITLES = ["Toy Story (1995)", "Toy Story 2 (1999)", "Amélie", "GoldenEye", "goldeneye GoldenEye"]


def test_vectors_give_the_cosines_of_an_independent_implementation():
    ours = title_vectors(TITLES)
    theirs = TfidfVectorizer(analyzer=title_features).fit_transform(TITLES)
    assert (ours @ ours.T).toarray() == pytest.approx((theirs @ theirs.T).toarray())
    assert np.linalg.norm(ours.toarray(), axis=1) == pytest.approx(np.ones(5))


def test_a_title_without_words_is_similar_to_none():
    vectors = title_vectors(["!!!", "Heat"])
    assert (vectors @ vectors.T).toarray() == pytest.approx(np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert title_vectors(["!!!"]).shape == (1, 1)

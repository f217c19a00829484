"""Titles as TF-IDF vectors of words and character trigrams."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

_WORD = re.compile(r"\w+")


def title_features(title: str) -> Iterator[str]:
    """Lowercase words of a title, and the trigrams of each word between spaces.

    >>> list(title_features("Up 2"))
    ['up', ' up', 'up ', '2', ' 2 ']
    """
    for word in _WORD.findall(title.lower()):
        yield word
        padded = f" {word} "
        yield from (padded[start : start + 3] for start in range(len(padded) - 2))


def title_vectors(titles: Sequence[str]) -> sparse.csr_matrix:
    """TF-IDF vectors [titles, features] of unit length; a title without words has none.

    An entry is the feature's count times ln((1 + titles) / (1 + titles with it)) + 1, as in
    scikit-learn's TfidfVectorizer.
    """
    vocabulary: dict[str, int] = {}
    rows, columns, counts = [], [], []
    for row, title in enumerate(titles):
        for feature, count in Counter(title_features(title)).items():
            rows.append(row)
            columns.append(vocabulary.setdefault(feature, len(vocabulary)))
            counts.append(float(count))
    shape = (len(titles), max(1, len(vocabulary)))
    matrix = sparse.csr_matrix((counts, (rows, columns)), shape)
    holding = np.bincount(np.asarray(columns, dtype=np.int64), minlength=shape[1])
    weighted = matrix @ sparse.diags(np.log((1 + len(titles)) / (1 + holding)) + 1)
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ weighted).tocsr()

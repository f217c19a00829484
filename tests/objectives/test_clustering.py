"""Exact one-dimensional 3-means against SciPy's k-means and against every assignment."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans

from raypo.objectives import clustering
from raypo.objectives.clustering import top_cluster
from tests.objectives.reference import highest_cluster, squares


def inertia_with_top(values: np.ndarray, top: np.ndarray) -> float:
    """The least cost of three clusters of which `top` is one."""
    rest = np.sort(values[~top])
    below = min(squares(rest[:cut]) + squares(rest[cut:]) for cut in range(len(rest) + 1))
    return squares(values[top]) + below


def test_never_worse_than_kmeans_with_many_restarts():
    r = np.random.default_rng(0)
    for width in (3, 4, 7, 15, 60):
        rows = np.stack(
            [
                r.normal(-7, 2, width),
                r.exponential(3, width),
                np.concatenate([r.normal(-20, 1, width - 1), [0.0]]),
                r.uniform(-1e4, 0, width),
            ]
        ).astype(np.float32)
        tops = top_cluster(torch.tensor(rows), torch.ones(rows.shape, dtype=torch.bool)).numpy()
        for row, top in zip(rows.astype(np.float64), tops, strict=True):
            centres, _ = kmeans(row, 3, iter=50, rng=0)
            cost = np.square(row[:, None] - centres).min(axis=1).sum()
            assert inertia_with_top(row, top) <= cost * (1 + 1e-7) + 1e-9


VALUES = st.lists(st.integers(-6, 3).map(float), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_cost_is_the_best_of_all_partitions_and_equal_values_stay_together(rows):
    width = max(map(len, rows))
    values = torch.full((len(rows), width), 99.0)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row)
        valid[index, : len(row)] = True
    tops = top_cluster(values, valid)
    assert not (tops & ~valid).any()
    for index, row in enumerate(rows):
        top = {i for i in range(len(row)) if tops[index, i]}
        best = highest_cluster(row)
        numbers = np.array(row)
        chosen, wanted = (np.isin(np.arange(len(row)), list(members)) for members in (top, best))
        cost = inertia_with_top(numbers, chosen)
        assert abs(cost - inertia_with_top(numbers, wanted)) < 1e-9
        assert {row[i] for i in top}.isdisjoint(row[i] for i in range(len(row)) if i not in top)
        if len(set(row)) < 3:
            assert top == best


def test_a_row_without_valid_values_has_no_cluster():
    assert not top_cluster(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)).any()


def test_long_rows_in_chunks_give_the_same_clusters(monkeypatch):
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(values, dtype=torch.bool)
    whole = top_cluster(values, valid)
    monkeypatch.setattr(clustering, "_PAIRS_PER_CHUNK", 300)
    assert torch.equal(top_cluster(values, valid), whole)

"""Where the target stands in a ranking of the catalogue, and what is kept of the ranking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.evaluation.catalogue.ranked import keep_best


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_the_best_are_kept_and_the_target_is_placed_among_all(scores, data):
    items = np.array(data.draw(st.permutations(range(len(scores)))))
    values = np.array(scores, dtype=float)
    target = data.draw(st.sampled_from([*items.tolist(), len(scores)]))
    kept = keep_best(items, values, target, kept=7)
    by_score = sorted(zip(-values, items, strict=True))[:7]
    assert kept.items == [item for _, item in by_score]
    assert kept.scores == [-score for score, _ in by_score]
    assert kept.num_ranked == len(scores)
    if target == len(scores):
        assert (kept.above, kept.ties) == (None, None)
    else:
        own = values[items == target][0]
        assert kept.above == (values > own).sum()
        assert kept.ties == (values == own).sum() - 1


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(RuntimeError, match="item 4 is nan"):
        keep_best(np.array([3, 4]), np.array([0.0, float("nan")]), 3)

"""Candidate sets of held-out rows: the target among items that its user never touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raypo.data.negatives import sample_untouched

Sampling = Literal["uniform", "popularity", "category"]
_TRIES = 50  # rounds of rejection before what is left is listed


@dataclass(frozen=True)
class CandidateSampler:
    """Draws a row's candidates as a pure function of the seed and the row.

    Attributes:
        num_items: in the data set. size: candidates of a row, target included.
        sampling: `uniform`; `popularity`, in proportion to occurrences in training sequences;
            `category`, items of the target's category, filled up uniformly where too few are left.
        weights: occurrences, [num_items], for `popularity`.
        categories: number of each item's category, [num_items], for `category`.
        seed: of every draw.
    """

    num_items: int
    size: int
    sampling: Sampling
    weights: np.ndarray
    categories: np.ndarray
    seed: int

    def draw(self, split: int, row: int, touched: set[int], target: int) -> tuple[list[int], bool]:
        """The target at a random place among distinct untouched items; whether it was filled up.

        Args:
            split: place in train, validation, test.
            row: place in the split.
            touched: every item of its user, before and after it.
            target: of the row.

        Raises:
            ValueError: too few items are untouched.
        """
        generator = np.random.default_rng([self.seed, split, row])
        count = self.size - 1
        pool = self._pool(target)
        if pool is None:
            chosen = sample_untouched(generator, touched, self.num_items, count)
        else:
            chosen = _weighted(generator, pool, touched, count)
        filled = len(chosen) < count
        if filled:
            taken = touched | set(chosen)
            chosen += sample_untouched(generator, taken, self.num_items, count - len(chosen))
        chosen.insert(int(generator.integers(self.size)), int(target))
        return chosen, filled

    def _pool(self, target: int) -> np.ndarray | None:
        if self.sampling == "uniform":
            return None
        if self.sampling == "popularity":
            return self.weights
        alike: np.ndarray = (self.categories == self.categories[target]).astype(np.int64)
        return alike


def _weighted(
    generator: np.random.Generator, weights: np.ndarray, touched: set[int], count: int
) -> list[int]:
    """Up to `count` distinct untouched items, one after the other in proportion to weights.

    Drawing with replacement and leaving repeats out is drawing without replacement.
    """
    if not weights.any():
        return []
    cumulative = np.cumsum(weights)
    chosen: dict[int, None] = {}
    for _ in range(_TRIES):
        draws = generator.integers(cumulative[-1], size=2 * count)
        for item in np.searchsorted(cumulative, draws, side="right").tolist():
            if item not in touched and len(chosen) < count:
                chosen.setdefault(item)
        if len(chosen) == count:
            return list(chosen)
    left = weights.astype(np.float64)
    left[[*touched, *chosen]] = 0
    free = np.flatnonzero(left)
    missing = min(count - len(chosen), len(free))
    if missing:
        drawn = generator.choice(free, missing, replace=False, p=left[free] / left[free].sum())
        chosen |= dict.fromkeys(drawn.tolist())
    return list(chosen)

"""Candidate sets: a row's target among items that its user never interacted with.

`CandidateSampler` draws candidates of held-out rows, once. `TrainingCandidates` draws new ones of
training rows every epoch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError

Sampling = Literal["uniform", "popularity", "category"]
_ORDER = 3  # number of this stream of random draws: training has 1 and 2
_TRIES = 50  # rounds of rejection before the remaining items are listed


@dataclass(frozen=True)
class CandidateSampler:
    """Draws a row's candidates as a pure function of the seed and the row.

    Attributes:
        num_items: in the data set. size: candidates of a row, target included.
        sampling: `uniform`; `popularity`, in proportion to occurrences in training sequences;
            `category`, items of the target's category, filled up uniformly if too few are left.
        weights: occurrences, [num_items], for `popularity`.
        categories: number of each item's category, [num_items], for `category`.
        seed: of every draw.
        cold: which items are cold, bool [num_items]. Then every set has the same number of them,
            in their share, so that their number says nothing of the target; None draws all alike.
    """

    num_items: int
    size: int
    sampling: Sampling
    weights: np.ndarray
    categories: np.ndarray
    seed: int
    cold: np.ndarray | None = None

    def draw(self, split: int, row: int, seen: set[int], target: int) -> tuple[list[int], bool]:
        """The target at a random position among unseen items, and whether the set was filled up.

        Args:
            split: index in (train, validation, test).
            row: position in the split.
            seen: every item of its user, before and after it.
            target: of the row.

        Raises:
            ValueError: there are too few unseen items.
        """
        generator = np.random.default_rng([self.seed, split, row])
        count = self.size - 1
        pool = self._pool(target)
        if self.cold is not None:
            chosen = self._of_both_kinds(generator, self.cold, seen, target)
        elif pool is None:
            chosen = sample_unseen(generator, seen, self.num_items, count)
        else:
            chosen = _weighted(generator, pool, seen, count)
        filled = len(chosen) < count
        if filled:
            taken = seen | set(chosen)
            chosen += sample_unseen(generator, taken, self.num_items, count - len(chosen))
        chosen.insert(int(generator.integers(self.size)), int(target))
        return chosen, filled

    def _of_both_kinds(
        self, generator: np.random.Generator, cold: np.ndarray, seen: set[int], target: int
    ) -> list[int]:
        """Unseen cold and other items in random order; fewer cold ones where they are used up."""
        wanted = min(max(2, round(float(cold.mean()) * self.size)), self.size - 2)
        count = min(wanted - int(cold[target]), num_unseen(seen, self.num_items, ~cold))
        others = self.size - 1 - (wanted - int(cold[target]))
        chosen = sample_unseen(generator, seen, self.num_items, count, ~cold)
        chosen += sample_unseen(generator, seen, self.num_items, others, cold)
        return [chosen[position] for position in generator.permutation(len(chosen))]

    def _pool(self, target: int) -> np.ndarray | None:
        if self.sampling == "uniform":
            return None
        if self.sampling == "popularity":
            return self.weights
        same: np.ndarray = (self.categories == self.categories[target]).astype(np.int64)
        return same


def _weighted(
    generator: np.random.Generator, weights: np.ndarray, seen: set[int], count: int
) -> list[int]:
    """Up to `count` distinct unseen items, drawn one after the other in proportion to weights.

    Drawing with replacement and skipping repeats equals drawing without replacement.
    """
    if not weights.any():
        return []
    cumulative = np.cumsum(weights)
    chosen: dict[int, None] = {}
    for _ in range(_TRIES):
        draws = generator.integers(cumulative[-1], size=2 * count)
        for item in np.searchsorted(cumulative, draws, side="right").tolist():
            if item not in seen and len(chosen) < count:
                chosen.setdefault(item)
        if len(chosen) == count:
            return list(chosen)
    left = weights.astype(np.float64)
    left[[*seen, *chosen]] = 0
    free = np.flatnonzero(left)
    missing = min(count - len(chosen), len(free))
    if missing:
        drawn = generator.choice(free, missing, replace=False, p=left[free] / left[free].sum())
        chosen |= dict.fromkeys(drawn.tolist())
    return list(chosen)


class TrainingCandidates:
    """Draws a training row's candidates as a pure function of (seed, epoch, row).

    Negatives are items that the user did not interact with in the training rows. Later interactions
    are not considered: excluding their items would leak the test rows.
    """

    def __init__(
        self,
        rows: TrainingRows,
        num_items: int,
        size: int,
        seed: int,
        cold: np.ndarray | None = None,
    ) -> None:
        """Check that every user has enough unseen items.

        Args:
            rows: the training rows.
            num_items: items in the catalogue.
            size: candidates per row, target included.
            seed: of every draw, at least 0.
            cold: items that training must not show, bool [num_items]; None is none.

        Raises:
            InputError: a user has fewer than `size - 1` unseen items.
        """
        shown = num_unseen((), num_items, cold)
        unseen = shown - np.diff(rows.seen_offsets)
        fewest = int(unseen.argmin())
        if unseen[fewest] < size - 1:
            raise InputError(
                f"candidates: {size} asked for, but user {rows.user_ids[fewest]} has only "
                f"{unseen[fewest]} of {shown} items unseen; ask for fewer"
            )
        self._rows = rows
        self._cold = cold
        self._num_items = num_items
        self._size = size
        self._seed = seed

    @property
    def num_negatives(self) -> int:
        """Negatives among a row's candidates."""
        return self._size - 1

    def unseen(self, row: int) -> np.ndarray:
        """All items that the row's user did not interact with in training, ascending."""
        shown = np.arange(self._num_items) if self._cold is None else np.flatnonzero(~self._cold)
        return np.setdiff1d(shown, self._rows.seen_by_user_of(row))

    def draw(self, row: int, epoch: int) -> list[int]:
        """The row's candidates: its target at a random position among distinct negatives."""
        generator, negatives = self._drawn(row, epoch)
        candidates = [*negatives, int(self._rows.targets[row])]
        position = int(generator.integers(len(candidates)))
        candidates[position], candidates[-1] = candidates[-1], candidates[position]
        return candidates

    def negatives(self, row: int, epoch: int, count: int) -> list[int]:
        """`count` of the negatives among `draw(row, epoch)`, in random order.

        The order is another one than that of the list which prompts show: a policy whose negatives
        were the first of that list would learn to avoid its beginning.

        Raises:
            ValueError: the candidates have fewer negatives.
        """
        if count > self._size - 1:
            raise ValueError(f"{count} negatives asked for, the candidates have {self._size - 1}")
        drawn = self._drawn(row, epoch)[1]
        order = np.random.default_rng([self._seed, epoch, row, _ORDER]).permutation(len(drawn))
        return [drawn[place] for place in order[:count]]

    def _drawn(self, row: int, epoch: int) -> tuple[np.random.Generator, list[int]]:
        generator = np.random.default_rng([self._seed, epoch, row])
        seen = set(self._rows.seen_by_user_of(row).tolist())
        count = self._size - 1
        return generator, sample_unseen(generator, seen, self._num_items, count, self._cold)


def num_unseen(seen: Collection[int], num_items: int, excluded: np.ndarray | None) -> int:
    """Number of items outside `seen` (distinct) and `excluded` (bool [num_items] or None)."""
    if excluded is None:
        return num_items - len(seen)
    both = sum(bool(excluded[item]) for item in seen)
    return num_items - len(seen) - int(excluded.sum()) + both


def sample_unseen(
    generator: np.random.Generator,
    seen: set[int],
    num_items: int,
    count: int,
    excluded: np.ndarray | None = None,
) -> list[int]:
    """`count` distinct items outside `seen` and `excluded`, uniform, in random order.

    Args:
        generator: of the draw.
        seen: items of the user.
        num_items: in the catalogue.
        count: of drawn items.
        excluded: further items that are not drawn, bool [num_items]; None is none.

    Raises:
        ValueError: fewer than `count` such items exist.
    """
    free = num_unseen(seen, num_items, excluded)
    if free < count:
        raise ValueError(f"{count} unseen items asked for, there are {free}")
    # Rejection takes num_items / free tries per item; if that is many, list the unseen items.
    if free < max(num_items // 8, 2 * count):
        every = np.arange(num_items) if excluded is None else np.flatnonzero(~excluded)
        pool = np.setdiff1d(every, np.fromiter(seen, dtype=np.int64))
        return [int(item) for item in generator.choice(pool, count, replace=False)]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for item in generator.integers(num_items, size=count).tolist():
            free = item not in seen and (excluded is None or not excluded[item])
            if free and len(chosen) < count:
                chosen.setdefault(item)
    return list(chosen)

"""Candidates and negatives of training rows, fresh every epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raypo.config import InputError


class TrainingCandidates:
    """Draws a training row's candidates as a pure function of (seed, epoch, row).

    Negatives come from the items that the user did not touch in the training rows. What the user
    touched later is not looked at: leaving it out would tell the model about the test rows.
    """

    def __init__(self, train: pd.DataFrame, num_items: int, size: int, seed: int) -> None:
        """Index the training rows.

        Args:
            train: rows with user_id, history and target.
            num_items: items in the catalogue.
            size: candidates per row, target included.
            seed: of every draw, at least 0.

        Raises:
            InputError: some user leaves fewer than `size - 1` items untouched.
        """
        self._users = train["user_id"].to_numpy()
        self._targets = train["target"].to_numpy()
        self._touched = touched_items(train)
        for user, items in self._touched.items():
            if num_items - len(items) < size - 1:
                raise InputError(
                    f"candidates: {size} asked for, but user {user} leaves only "
                    f"{num_items - len(items)} of {num_items} items untouched; ask for fewer"
                )
        self._num_items = num_items
        self._size = size
        self._seed = seed

    def draw(self, row: int, epoch: int) -> list[int]:
        """The row's candidates: its target at a random position among distinct negatives."""
        generator, negatives = self._drawn(row, epoch)
        candidates = [*negatives, int(self._targets[row])]
        position = int(generator.integers(len(candidates)))
        candidates[position], candidates[-1] = candidates[-1], candidates[position]
        return candidates

    def negatives(self, row: int, epoch: int, count: int) -> list[int]:
        """`count` of the negatives among `draw(row, epoch)`, in random order.

        Raises:
            ValueError: the candidates hold fewer negatives than that.
        """
        if count > self._size - 1:
            raise ValueError(f"{count} negatives asked for, candidates hold {self._size - 1}")
        return self._drawn(row, epoch)[1][:count]

    def _drawn(self, row: int, epoch: int) -> tuple[np.random.Generator, list[int]]:
        generator = np.random.default_rng([self._seed, epoch, row])
        touched = self._touched[int(self._users[row])]
        return generator, sample_untouched(generator, touched, self._num_items, self._size - 1)


def touched_items(rows: pd.DataFrame) -> dict[int, set[int]]:
    """Every item in a user's histories and targets, by user."""
    touched: dict[int, set[int]] = {}
    for user, history, target in zip(rows["user_id"], rows["history"], rows["target"], strict=True):
        items = touched.setdefault(user, set())
        items.update(np.asarray(history).tolist())
        items.add(target)
    return touched


def sample_untouched(
    generator: np.random.Generator, touched: set[int], num_items: int, count: int
) -> list[int]:
    """`count` distinct items outside `touched`, uniform, in random order.

    Raises:
        ValueError: fewer than `count` such items exist.
    """
    free = num_items - len(touched)
    if free < count:
        raise ValueError(f"{count} items wanted that were not touched, there are {free}")
    # Rejection takes num_items / free tries an item; where that is many, list what is left.
    if free < max(num_items // 8, 2 * count):
        pool = np.setdiff1d(np.arange(num_items), np.fromiter(touched, dtype=np.int64))
        return [int(item) for item in generator.choice(pool, count, replace=False)]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for item in generator.integers(num_items, size=count).tolist():
            if item not in touched and len(chosen) < count:
                chosen.setdefault(item)
    return list(chosen)

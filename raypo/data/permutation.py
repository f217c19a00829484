"""Random orders of rows that need no memory for each row.

A list of 20 million row numbers takes 160 MB in every process. Beyond `LISTED` rows an order is
therefore computed: a Feistel network is a permutation of all numbers of some bits, and numbers
outside the range are sent through it again until they are inside (cycle walking; Black and Rogaway
2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LISTED = 1_000_000
_ROUNDS = 6


@dataclass(frozen=True)
class Permutation:
    """A random order of the numbers below `size`, a function of `seed`.

    Attributes:
        seed: any number of integers, none negative.
        size: how many numbers.
    """

    seed: tuple[int, ...]
    size: int

    def __len__(self) -> int:
        """How many numbers."""
        return self.size

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """The numbers at these positions [n], int64."""
        if self.size <= LISTED:
            listed: np.ndarray = _listed(self.seed, self.size)[positions]
            return listed
        return _walk(self.seed, self.size, np.asarray(positions))


def draw(seed: Sequence[int], size: int, count: int) -> Permutation | np.ndarray:
    """`count` of the numbers below `size` in random order: an array, or computed if it is large.

    Args:
        seed: integers, none negative.
        size: how many numbers there are.
        count: how many to draw, at most `size`.
    """
    # numpy draws a small part of a large range without listing the range.
    if size <= LISTED or count * 50 < size:
        return np.random.default_rng(list(seed)).choice(size, count, replace=False)
    return _First(tuple(seed), count, size)


@dataclass(frozen=True)
class _First(Permutation):
    """The first `size` numbers of a permutation of the numbers below `whole`."""

    whole: int

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        return _walk(self.seed, self.whole, np.asarray(positions))


@functools.lru_cache(maxsize=4)
def _listed(seed: tuple[int, ...], size: int) -> np.ndarray:
    return np.random.default_rng(list(seed)).permutation(size)


def _walk(seed: tuple[int, ...], size: int, positions: np.ndarray) -> np.ndarray:
    keys = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64)
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    values = _feistel(positions.astype(np.uint64), keys, half)
    outside = values >= size
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half)
        outside = values >= size
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    """A permutation of the numbers of 2 `half` bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & mask)
    mixed: np.ndarray = (left << half) | right
    return mixed


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014), keyed."""
    mixed: np.ndarray = values + key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed

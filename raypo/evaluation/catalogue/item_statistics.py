"""What metrics over the catalogue have to know of its items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

# The cosines of their distinct items are made at once: of 2,560 at most, in 50 MB.
_LISTS_AT_A_TIME = 256


@dataclass(frozen=True)
class ItemStatistics:
    """Of the training rows.

    Attributes:
        popularity: occurrences of each item in the training sequences, [items].
        interactions: which of the training users has which item, 0 or 1, [users, items].
    """

    popularity: np.ndarray
    interactions: sparse.csr_matrix

    @property
    def novelty(self) -> np.ndarray:
        """Self-information [items] in bits, -log2 of the share of training users with the item.

        An item that none has counts as if one had it, as in RecTools' MeanInvUserFreq.
        """
        users = np.asarray(self.interactions.sum(axis=0)).ravel()
        novelty: np.ndarray = -np.log2(np.maximum(users, 1) / self.interactions.shape[0])
        return novelty

    @property
    def chance(self) -> np.ndarray:
        """How probable an item is to anybody by its popularity, [items]; 0 for unseen ones.

        (items + 1 - popularity rank) / items, with one rank for equal popularity, as RecTools'
        Serendipity has it.
        """
        seen = self.popularity[self.popularity > 0]
        descending = np.unique(seen)[::-1]
        ranks = np.searchsorted(-descending, -self.popularity) + 1
        count = len(self.popularity)
        return np.where(self.popularity > 0, (count + 1 - ranks) / count, 0.0)

    def distances(self, lists: np.ndarray) -> np.ndarray:
        """Mean distance [n] between the items of each list [n, k]: 1 - cosine over users."""
        norms = np.sqrt(np.asarray(self.interactions.sum(axis=0)).ravel())
        unit = (self.interactions @ sparse.diags(1 / np.maximum(norms, 1))).T.tocsr()
        upper = np.triu_indices(lists.shape[1], 1)
        means = np.empty(len(lists))
        for start in range(0, len(lists), _LISTS_AT_A_TIME):
            part = lists[start : start + _LISTS_AT_A_TIME]
            distinct, places = np.unique(part, return_inverse=True)
            vectors = unit[distinct]
            similar = np.asarray((vectors @ vectors.T).todense())
            places = places.reshape(part.shape)
            pairs = similar[places[:, upper[0]], places[:, upper[1]]]
            means[start : start + len(part)] = 1 - pairs.mean(axis=1)
        return means

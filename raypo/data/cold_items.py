"""New items: a share of the catalogue that no interaction of the training period has.

The split is by time. Interactions of the training period with a cold item are left out, as if the
item had appeared afterwards; they only count as seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raypo.data.shards import ShardedLog, load_column
from raypo.data.time_order import refine, time_ranks


@dataclass(frozen=True)
class ColdSplit:
    """A log without the early interactions of cold items.

    Attributes:
        kept: which interactions of each shard remain, bool [interactions] per shard.
        periods: index in (train, validation, test) of each remaining interaction, int8 [kept] per
            shard.
        cold: which items of the catalogue are cold, bool [items].
    """

    kept: list[np.ndarray]
    periods: list[np.ndarray]
    cold: np.ndarray


def split_cold_items(
    log: ShardedLog, kept: Sequence[np.ndarray], ratio: Sequence[int], share: float, seed: int
) -> ColdSplit:
    """Divide kept interactions by time in `ratio`, and take cold items out of the first part.

    Args:
        log: the ordered shards.
        kept: which interactions of each shard are kept.
        ratio: of train, validation and test, over interactions.
        share: of the items with interactions that are cold, drawn at random.
        seed: of the draw.
    """
    shards = range(len(log.users))
    items = [load_column(log.folder, number, "item")[kept[number]] for number in shards]
    cold = _draw(np.unique(np.concatenate(items)), log.num_items, share, seed)
    rank = time_ranks(log.folder, list(kept))
    cuts = np.cumsum(ratio)[:2] * len(rank) // sum(ratio)
    period = np.searchsorted(cuts, rank, side="right").astype(np.int8)
    bounds = np.cumsum([0, *map(len, items)])
    periods = [period[bounds[number] : bounds[number + 1]] for number in shards]
    stays = [(own > 0) | ~cold[item] for own, item in zip(periods, items, strict=True)]
    return ColdSplit(
        [refine(mask, stay) for mask, stay in zip(kept, stays, strict=True)],
        [own[stay] for own, stay in zip(periods, stays, strict=True)],
        cold,
    )


def _draw(interacted: np.ndarray, num_items: int, share: float, seed: int) -> np.ndarray:
    cold = np.zeros(num_items, dtype=bool)
    # A stream of its own: the draws of users and of candidates stay as they are.
    generator = np.random.default_rng([seed, len(interacted), 7])
    count = max(1, round(share * len(interacted)))
    cold[generator.choice(interacted, count, replace=False)] = True
    return cold

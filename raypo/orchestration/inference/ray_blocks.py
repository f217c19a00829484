"""Tables as Ray Data datasets with blocks of a chosen size."""

from __future__ import annotations

import pandas as pd
import ray.data

from raypo.orchestration.cluster import silence_logs


def in_blocks(rows: pd.DataFrame, size: int) -> ray.data.Dataset:
    """`rows` as a dataset with blocks of `size` rows.

    An actor of a pool takes one block at a time and returns its answers together. The table is cut
    here, because the tasks of `repartition` need a core: where a pool holds every core they would
    wait for ever.
    """
    silence_logs()  # importing ray.data, perhaps after `connect`, sets levels of its own
    return ray.data.from_pandas(
        [rows.iloc[start : start + size] for start in range(0, len(rows), size)]
    )

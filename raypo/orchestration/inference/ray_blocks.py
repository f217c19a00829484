"""Tables into Ray Data in blocks of a chosen size."""

from __future__ import annotations

import pandas as pd
import ray.data


def in_blocks(rows: pd.DataFrame, size: int) -> ray.data.Dataset:
    """`rows` as a dataset of blocks of `size` rows.

    A member of an actor pool takes a block at a time and answers come back a block at a time.
    The table is cut here and not by `repartition`, whose tasks need a core: where a pool holds
    every core they would wait for ever.
    """
    return ray.data.from_pandas(
        [rows.iloc[start : start + size] for start in range(0, len(rows), size)]
    )

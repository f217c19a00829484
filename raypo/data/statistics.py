"""The size of a data set, and the sizes that papers report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from raypo.config import Paper

# Sequences, items, interactions: LLaRA (arXiv 2312.02445) table 1, S-DPO (arXiv 2406.09215) and
# NAPO (arXiv 2508.09653) table 4, which use its data.
PUBLISHED: dict[Paper, tuple[int, int, int]] = {
    "movielens": (943, 1_682, 100_000),
    "lastfm": (1_220, 4_606, 73_510),
    "goodreads": (6_031, 4_500, 220_100),
    "steam": (11_938, 3_581, 274_726),
}


def statistics_table(counts: dict[str, Any], paper: Paper | None) -> pd.DataFrame:
    """Sequences, items and interactions of a data set, as in the papers' tables.

    Args:
        counts: of `dataset.json`.
        paper: whose figures are added; None leaves them out.

    Returns:
        Columns what, here and, with `paper`, paper.
    """
    here = {
        "sequences": counts.get("users"),
        "items": counts.get("items"),
        "interactions": counts.get("interactions"),
    }
    frame = pd.DataFrame({"what": list(here), "here": list(here.values())})
    if paper is not None:
        frame["paper"] = PUBLISHED[paper]
    return frame

"""Makes `other_libraries.json`: figures of ranx and RecTools for rankings drawn at random.

    python -m venv venv && venv/bin/pip install ranx==0.3.21 rectools==0.19.0
    venv/bin/python tests/evaluation/catalogue/other_libraries.py

RecTools asks for older versions of numpy and pandas than raypo has: it needs an environment of its
own, which is why the tests read the file.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from ranx import Qrels, Run, evaluate
from rectools import Columns
from rectools.metrics import (
    MRR,
    NDCG,
    CatalogCoverage,
    HitRate,
    IntraListDiversity,
    MeanInvUserFreq,
    Recall,
    Serendipity,
)
from rectools.metrics.distances import PairwiseDistanceCalculator

USERS, ITEMS, LENGTH = 60, 40, 30


class CosineOverUsers(PairwiseDistanceCalculator):
    """1 - cosine of two items' vectors of users."""

    def __init__(self, seen: np.ndarray) -> None:
        norms = np.maximum(np.sqrt(seen.sum(axis=0)), 1)
        self._unit = seen / norms

    def _get_distances_for_item_pairs(self, i0: np.ndarray, i1: np.ndarray) -> np.ndarray:
        return 1 - (self._unit[:, i0] * self._unit[:, i1]).sum(axis=0)


def main() -> None:
    generator = np.random.default_rng(0)
    chance = np.linspace(0.02, 0.6, ITEMS)
    seen = generator.random((USERS, ITEMS)) < chance
    seen[:, :2] = False  # items that training never saw
    seen[~seen.any(axis=1), -1] = True  # every user has some
    # Scores of different sizes, so that nothing ties: libraries break ties in ways of their own.
    lists = np.stack([generator.permutation(ITEMS)[:LENGTH] for _ in range(USERS)])
    targets = generator.integers(ITEMS, size=USERS)
    reco = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(USERS), LENGTH),
            Columns.Item: lists.ravel(),
            Columns.Rank: np.tile(np.arange(1, LENGTH + 1), USERS),
        }
    )
    chosen = pd.DataFrame({Columns.User: np.arange(USERS), Columns.Item: targets})
    user, item = np.nonzero(seen)
    before = pd.DataFrame({Columns.User: user, Columns.Item: item})
    catalogue = np.arange(ITEMS)
    figures: dict[str, float] = {}
    for k in (1, 5, 10, 20):
        figures[f"HitRatio@{k}"] = HitRate(k=k).calc(reco, chosen)
        assert figures[f"HitRatio@{k}"] == Recall(k=k).calc(reco, chosen)
    for k in (5, 10, 20):
        figures[f"NDCG@{k}"] = NDCG(k=k, divide_by_achievable=True).calc(reco, chosen)
    figures["MRR"] = MRR(k=LENGTH).calc(reco, chosen)
    figures["Novelty@10"] = MeanInvUserFreq(k=10).calc(reco, before)
    figures["Serendipity@10"] = Serendipity(k=10).calc(reco, chosen, before, catalogue)
    distance = CosineOverUsers(seen.astype(float))
    figures["IntraListDiversity@10"] = IntraListDiversity(k=10, distance_calculator=distance).calc(
        reco
    )
    figures["Coverage@10"] = CatalogCoverage(k=10, normalize=True).calc(reco, catalogue)
    qrels = Qrels({f"u{u}": {f"i{targets[u]}": 1} for u in range(USERS)})
    run = Run(
        {
            f"u{u}": {f"i{i}": float(LENGTH - r) for r, i in enumerate(lists[u])}
            for u in range(USERS)
        }
    )
    names = {f"HitRatio@{k}": f"hit_rate@{k}" for k in (1, 5, 10, 20)}
    names |= {f"NDCG@{k}": f"ndcg@{k}" for k in (5, 10, 20)} | {"MRR": "mrr"}
    by_ranx = evaluate(qrels, run, list(names.values()))
    content = {
        "lists": lists.tolist(),
        "targets": targets.tolist(),
        "seen": [np.flatnonzero(one).tolist() for one in seen],
        "items": ITEMS,
        "rectools 0.19.0": {name: float(value) for name, value in figures.items()},
        "ranx 0.3.21": {name: float(by_ranx[theirs]) for name, theirs in names.items()},
    }
    file = Path(__file__).with_suffix(".json")
    file.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()

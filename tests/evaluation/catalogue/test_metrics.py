"""Metrics over the catalogue are those of other libraries; misses and ties count rightly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sparse

from raypo.evaluation.catalogue.compared import order_agreement
from raypo.evaluation.catalogue.item_statistics import ItemStatistics
from raypo.evaluation.catalogue.metrics import row_metrics, summarise_ranked
from raypo.evaluation.catalogue.ranked import read_ranked, write_ranked
from raypo.evaluation.intervals import Resampling

OTHERS = json.loads(Path(__file__).with_name("other_libraries.json").read_text())


def drawn() -> tuple[pd.DataFrame, ItemStatistics]:
    """The rankings that the other libraries evaluated."""
    lists, targets = np.array(OTHERS["lists"]), np.array(OTHERS["targets"])
    seen = np.zeros((len(lists), OTHERS["items"]))
    for user, items in enumerate(OTHERS["seen"]):
        seen[user, items] = 1
    hits = lists == targets[:, None]
    above = pd.array(np.where(hits.any(axis=1), hits.argmax(axis=1), -1), dtype="Int64")
    above[~hits.any(axis=1)] = pd.NA
    frame = pd.DataFrame(
        {
            "row": range(len(lists)),
            "user_id": range(len(lists)),
            "history": OTHERS["seen"],
            "target": targets,
            "items": lists.tolist(),
            "scores": [list(range(lists.shape[1], 0, -1))] * len(lists),
            "above": above,
            "ties": above * 0,
            "num_ranked": OTHERS["items"],
        }
    )
    return frame, ItemStatistics(seen.sum(axis=0).astype(int), sparse.csr_matrix(seen))


@pytest.mark.parametrize("library", ["rectools 0.19.0", "ranx 0.3.21"])
def test_metrics_are_those_of_other_libraries(library: str) -> None:
    summary = summarise_ranked(*drawn(), Resampling(50, 0))
    expected = OTHERS[library]
    ours = {name: summary[name] for name in expected}
    assert ours == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["HitRatio@1"] < expected["HitRatio@20"] < 1


def test_a_target_that_was_not_retrieved_is_a_miss_and_ties_share_their_ranks(
    tmp_path: Path,
) -> None:
    frame, items = drawn()
    frame = frame.iloc[:3].copy()
    frame["above"] = pd.array([pd.NA, 0, 9], dtype="Int64")
    frame["ties"] = pd.array([pd.NA, 1, 1], dtype="Int64")
    write_ranked(tmp_path, frame)
    values = row_metrics(read_ranked(tmp_path), items)
    assert values["HitRatio@1"].tolist() == [0, 0.5, 0]
    assert values["HitRatio@10"].tolist() == [0, 1, 0.5]
    assert values["MRR"].tolist() == pytest.approx([0, 0.75, (1 / 10 + 1 / 11) / 2])
    assert values["Retrieved"].tolist() == [0, 1, 1]


def test_breakdowns_count_every_row_of_their_group() -> None:
    frame, items = drawn()
    summary = summarise_ranked(frame, items, Resampling(50, 0))
    groups = {one["rows"]: one for one in summary["breakdowns"]}
    never = [target in (0, 1) for target in frame["target"]]
    assert groups["targets never in training"]["n"] == sum(never)
    quintiles = [one["n"] for name, one in groups.items() if "quintile" in name]
    assert sum(quintiles) == len(frame)


def test_orders_that_agree_and_that_are_reversed() -> None:
    generator = np.random.default_rng(0)
    rows = generator.random((5, 4000))
    models = {f"model {level}": (one < level / 6).astype(float) for level, one in enumerate(rows)}
    same = order_agreement(models, models, num_bootstrap=100)
    assert same is not None and same.num_models == 5
    assert (same.tau, same.low) == pytest.approx((1.0, 1.0))
    reverse = order_agreement(models, {name: -one for name, one in models.items()})
    assert reverse is not None and reverse.tau == pytest.approx(-1.0)
    assert order_agreement({"a": rows[0], "b": rows[1]}, {"a": rows[0], "b": rows[1]}) is None

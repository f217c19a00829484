"""Candidates of validation and test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from raypo.config import PrepareConfig
from raypo.data.candidates import CandidateSampler
from raypo.data.dataset import Dataset
from tests.data.conftest import NUM_ITEMS, write_lines
from tests.data.logs import ordered, prepared

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
Option = dict[str, object]


def test_candidates_hold_the_target_and_items_never_seen(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config(candidates=8))
    names = list(dict.fromkeys(user for user, _, _ in ordered(log)))
    seen = {name: {int(i[1:]) for u, i, _ in log if u == name} for name in names}
    for frame in (data.validation, data.test):
        for row in frame.itertuples():
            candidates = row.candidates.tolist()
            assert len(set(candidates)) == 8
            assert set(candidates) & seen[names[row.user_id]] == {row.target}
    positions = [
        row.candidates.tolist().index(row.target)
        for row in pd.concat([data.validation, data.test]).itertuples()
    ]
    assert set(positions) == set(range(8))


def test_candidates_by_popularity_and_by_category(make_config: MakeConfig, tmp_path: Path) -> None:
    items = write_lines(
        tmp_path / "kinds.item",
        ["item_id:token\tmovie_title:token_seq\tkind:token"]
        + [f"i{i}\tTitle {i}\t{'even' if i % 2 == 0 else 'odd'}|x" for i in range(NUM_ITEMS)],
    )
    options: Option = {"items": items, "year_field": None, "candidates": 5}
    by_kind = prepared(
        make_config(sampling="category", category_field="kind", output=tmp_path / "kind", **options)
    )
    filled = by_kind.info["counts"]["candidate_sets_filled_uniformly"]
    mixed = sum(
        len({item % 2 for item in row.candidates.tolist()}) > 1
        for row in pd.concat([by_kind.validation, by_kind.test]).itertuples()
    )
    assert mixed <= filled < len(by_kind.test)
    popular = prepared(make_config(sampling="popularity", output=tmp_path / "popular", **options))
    uniform = prepared(make_config(output=tmp_path / "uniform", **options))

    def mean_popularity(data: Dataset) -> float:
        counts = data.items["popularity"].to_numpy()
        drawn = [
            counts[item]
            for row in pd.concat([data.validation, data.test]).itertuples()
            for item in row.candidates.tolist()
            if item != row.target
        ]
        return float(np.mean(drawn))

    assert mean_popularity(popular) > 1.03 * mean_popularity(uniform)


def test_weights_are_sampling_probabilities(tmp_path: Path) -> None:
    weights = np.array([0, 1, 2, 5, 0])
    sampler = CandidateSampler(5, 2, "popularity", weights, np.zeros(5), 0)
    drawn = Counter(
        next(item for item in sampler.draw(1, row, {4}, 4)[0] if item != 4) for row in range(4000)
    )
    assert set(drawn) == {1, 2, 3}
    assert scipy.stats.chisquare([drawn[1], drawn[2], drawn[3]], [500, 1000, 2500]).pvalue > 1e-3

"""Rankings of the catalogue in the report: beside those of candidates, and by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raypo.errors import InputError
from raypo.evaluation.catalogue.metrics import summarise_ranked
from raypo.evaluation.catalogue.ranked import write_ranked
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.predictions import empty_predictions
from raypo.evaluation.report.catalogue import (
    CatalogueRun,
    catalogue_section,
    is_catalogue,
    read_catalogue_run,
)
from raypo.evaluation.report.page import write_report
from raypo.evaluation.report.runs import ReportRun
from raypo.evaluation.summary import MetricOptions, summarise
from raypo.io.files import write_json
from tests.evaluation.catalogue.test_metrics import drawn

RESAMPLING = Resampling(50, 0)


def ranked_run(folder: Path, name: str, shift: int) -> CatalogueRun:
    """A model whose targets stand `shift` places lower than in the drawn rankings."""
    frame, items = drawn()
    frame = frame.assign(above=frame["above"] + shift)
    folder.mkdir()
    write_ranked(folder, frame)
    write_json(folder / "metrics.json", {"catalogue": summarise_ranked(frame, items, RESAMPLING)})
    write_json(folder / "evaluated.json", {"catalogue": "retrieved:30" if shift else "all"})
    assert is_catalogue(folder)
    return read_catalogue_run(name, folder)


def candidates_run(name: str, better: float) -> ReportRun:
    """A model that puts a share of the same rows' targets first among three candidates."""
    frame, items = drawn()
    predictions = empty_predictions(frame.assign(candidates=[[t, 1, 2] for t in frame["target"]]))
    first = np.arange(len(frame)) < better * len(frame)
    predictions["logps"] = [[-1.0 if one else -3.0, -2.0, -4.0] for one in first]
    metrics = summarise(predictions, items.popularity, MetricOptions(RESAMPLING))
    return ReportRun(name, metrics, predictions, [])


def page(folder: Path, runs: list[ReportRun], of_catalogue: list[CatalogueRun]) -> str:
    titles = [f"Film {item}" for item in range(40)]
    popularity = drawn()[1].popularity
    file = write_report(folder / "r.html", "x", runs, titles, popularity, None, of_catalogue)
    return file.read_text()


def test_the_section_says_how_the_two_orders_agree(tmp_path: Path) -> None:
    ranked = [ranked_run(tmp_path / name, name, 4 * at) for at, name in enumerate("abc")]
    text = page(
        tmp_path,
        [candidates_run(n, s) for n, s in zip("abc", (0.9, 0.5, 0.1), strict=True)],
        ranked,
    )
    assert "order the 3 models" in text and "tau 1.00" in text
    assert "b, retrieved:30" in text and "NDCG@10, a," in text
    text = page(
        tmp_path,
        [candidates_run(n, s) for n, s in zip("abc", (0.1, 0.5, 0.9), strict=True)],
        ranked,
    )
    assert "tau -1.00" in text


def test_a_page_of_rankings_alone_has_no_other_table(tmp_path: Path) -> None:
    text = page(tmp_path, [], [ranked_run(tmp_path / "a", "a", 0)])
    assert 'id="catalogue"' in text
    assert 'id="leaderboard"' not in text and "Test users" not in text and "tau" not in text


def test_rankings_of_other_rows_are_refused(tmp_path: Path) -> None:
    one, other = (ranked_run(tmp_path / name, name, 0) for name in "ab")
    fewer = CatalogueRun("b", other.metrics, other.ranked.iloc[1:], "all")
    with pytest.raises(InputError, match="different rows"):
        catalogue_section([one, fewer], [])
    assert catalogue_section([], []) is None
    assert isinstance(one.ranked, pd.DataFrame)

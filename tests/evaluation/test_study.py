"""Studies: pooled over seeds, tested over users, corrected together; what has not run says so."""

import numpy as np
import pandas as pd
import pytest

from raypo.config import parse_config
from raypo.config.study import StudyConfig
from raypo.errors import InputError
from raypo.evaluation.catalogue.ranked import write_ranked
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.predictions import (
    empty_predictions,
    read_predictions,
    write_predictions,
)
from raypo.evaluation.study.page import as_markdown, study_page, write_study
from raypo.evaluation.study.record import StudyRecord
from raypo.evaluation.study.results import compare_claims, read_study
from raypo.io.files import write_json

ROWS, CANDIDATES = 120, 5
RESAMPLING = Resampling(200, 0)


def study_in(folder, **changed):
    values = {
        "output": folder,
        "title": "Three cells",
        "seeds": [0, 1],
        "pipeline": {"builtin_data": "movielens-100k", "model": "tiny-random"},
        "cells": {
            "good": {"paper": {"HitRatio@1": 0.5}},
            "poor": {"settings": {"align.objective": {"name": "s-dpo"}}},
            "missing": {"model": "sft"},
        },
        "claims": [
            {"text": "good is better", "cell": "good", "than": "poor"},
            {"text": "good is better than what is missing", "cell": "good", "than": "missing"},
            {"text": "poor is better", "cell": "poor", "than": "good"},
        ],
        "num_bootstrap": 200,
    }
    return parse_config(StudyConfig, values | changed, "test")


def evaluated(folder, share, seed, first_row=0):
    """An evaluation in which a share of the targets is ranked first; returns the hits."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(CANDIDATES, size=ROWS)
    logps = generator.normal(size=(ROWS, CANDIDATES))
    hits = generator.random(ROWS) < share
    logps[np.arange(ROWS), targets] = np.where(hits, 10, -10)
    rows = pd.DataFrame(
        {
            "row": np.arange(ROWS) + first_row,
            "user_id": np.arange(ROWS) // 2,
            "history": [[7]] * ROWS,
            "target": targets,
            "candidates": [list(range(CANDIDATES))] * ROWS,
        }
    )
    frame = empty_predictions(rows).assign(logps=logps.tolist(), lengths=[[1] * CANDIDATES] * ROWS)
    folder.mkdir(parents=True)
    write_predictions(folder, frame)
    write_json(folder / "metrics.json", {"likelihood": {"PopularityBias": 0.25}})
    return hits


@pytest.fixture
def ran(tmp_path):
    """A study of which one cell has not run, and the hits of the others by cell and seed."""
    study = study_in(tmp_path)
    record = StudyRecord.open(study)
    hits = {}
    for seed in study.seeds:
        for cell, share in (("good", 0.7), ("poor", 0.3)):
            folder = tmp_path / f"evaluate-{cell}-{seed}"
            hits[cell, seed] = evaluated(folder, share, 10 * seed + len(cell) + int(10 * share))
            record.keep(cell, seed, folder, 60.0)
    return study, hits


def test_a_row_counts_with_its_mean_over_the_seeds(ran):
    study, hits = ran
    good, poor, missing = read_study(study, StudyRecord.open(study))
    assert not missing.seeds and missing.seconds is None
    pooled = good.pooled("HitRatio@1", [0, 1])
    assert pooled.tolist() == np.mean([hits["good", 0], hits["good", 1]], axis=0).tolist()
    value, low, high = poor.mean("HitRatio@1", RESAMPLING)
    assert value == pytest.approx(np.mean([hits["poor", 0], hits["poor", 1]]))
    assert low < value < high


def test_claims_are_tested_together_and_those_without_cells_are_not_run(ran):
    study, hits = ran
    better, missing, worse = compare_claims(study, read_study(study, StudyRecord.open(study)))
    difference = np.mean([hits["good", seed].mean() - hits["poor", seed].mean() for seed in (0, 1)])
    assert better.differences["HitRatio@1"].difference == pytest.approx(difference)
    assert better.verdict("HitRatio@1") == "holds"
    assert worse.verdict("HitRatio@1") == "the other way"
    assert missing.verdict("HitRatio@1") == "not run" and not missing.differences
    # Holm over the two claims that ran: the smaller of two equal p-values counts twice.
    p_value = better.differences["HitRatio@1"].p_value
    assert better.adjusted["HitRatio@1"] == pytest.approx(2 * p_value)


def test_a_claim_that_the_rows_cannot_decide_is_open(tmp_path):
    study = study_in(tmp_path)
    record = StudyRecord.open(study)
    for cell, seed in (("good", 1), ("poor", 2), ("missing", 1)):
        evaluated(tmp_path / cell, 0.5, seed)
        record.keep(cell, 0, tmp_path / cell, None)
    claims = compare_claims(study, read_study(study, record))
    assert claims[0].seeds == [0]
    detectable = claims[0].differences["HitRatio@1"].smallest_detectable
    assert claims[0].verdict("HitRatio@1") == f"open: {detectable:.3f} would likely have been seen"
    assert claims[1].verdict("HitRatio@1") == "open: no row differs"


def test_an_evaluation_of_other_settings_is_not_the_cells(ran):
    study, _ = ran
    changed = study_in(study.output, pipeline=study.pipeline | {"hints": "rank"})
    assert not any(cell.seeds for cell in read_study(changed, StudyRecord.open(changed)))


def test_cells_of_different_rows_are_refused(ran):
    study, _ = ran
    evaluated(study.output / "other", 0.5, 1, first_row=1)
    record = StudyRecord.open(study)
    record.keep("missing", 0, study.output / "other", None)
    with pytest.raises(InputError, match="cells were evaluated on different test rows"):
        read_study(study, record)


def ranked_in_catalogue(folder, above):
    """A ranking of the catalogue in which so many items are above each row's target."""
    count = len(above)
    frame = pd.DataFrame(
        {
            "row": np.arange(count),
            "user_id": np.arange(count),
            "history": [[7]] * count,
            "target": [3] * count,
            "items": [list(range(20))] * count,
            "scores": [list(np.linspace(0, -1, 20))] * count,
            "above": pd.array(above, dtype="Int64"),
            "ties": pd.array([None if one is None else 0 for one in above], dtype="Int64"),
            "num_ranked": [100] * count,
        }
    )
    folder.mkdir()
    write_ranked(folder, frame)
    write_json(folder / "metrics.json", {"catalogue": {"PopularityBias@10": 0.5}})


def test_a_study_of_the_catalogue_has_its_metrics(tmp_path):
    pipeline = {"builtin_data": "movielens-100k", "model": "tiny-random", "catalogue": "all"}
    study = study_in(tmp_path, pipeline=pipeline)
    record = StudyRecord.open(study)
    for seed, above in ((0, [0, 9, 10, None]), (1, [0, 0, 1, 50])):
        ranked_in_catalogue(tmp_path / f"good-{seed}", above)
        record.keep("good", seed, tmp_path / f"good-{seed}", None)
    good = read_study(study, record)[0]
    assert good.pooled("HitRatio@10", [0, 1]).tolist() == [1.0, 1.0, 0.5, 0.0]
    ndcg = [1.0, (1 / np.log2(11) + 1) / 2, 1 / np.log2(3) / 2, 0.0]
    assert good.pooled("NDCG@10", [0, 1]).tolist() == pytest.approx(ndcg)
    assert good.pooled("MRR", [0]).tolist() == pytest.approx([1, 1 / 10, 1 / 11, 0])
    text = as_markdown(study_page(study))
    assert "among the whole catalogue" in text and "| good | 0.625 " in text
    assert "HitRatio@10, seed 1" in text and "| +0.50 |" in text


def test_the_page_says_what_ran_and_what_did_not(ran):
    study, hits = ran
    text = as_markdown(study_page(study))
    assert "4 of 6 evaluations have run" in text and "| missing | not run |" in text
    assert f"| {hits['good', 1].mean():.3f} | 0.500 | 1.0 |" in text
    written = write_study(study)
    assert [file.name for file in written] == ["study.md", "study.html"]
    page = written[1].read_text()
    assert "PositionBias" not in page  # nothing to say of places
    assert page.count("<svg") == 2 and "good is better than what is missing" in page


def test_the_page_says_where_places_decide(tmp_path):
    study = study_in(tmp_path)
    record = StudyRecord.open(study)
    evaluated(tmp_path / "good", 0.7, 1)
    evaluated(tmp_path / "poor", 0.3, 1)
    frame = read_predictions(tmp_path / "poor")
    frame["logps"] = [list(np.arange(CANDIDATES) / 1.0)] * ROWS  # the last candidate, always
    write_predictions(tmp_path / "poor", frame)
    for cell in ("good", "poor"):
        record.keep(cell, 0, tmp_path / cell, None)
    (remark,) = study_page(study).remarks
    assert remark.startswith("poor: candidates that stand late in the list are preferred")
    assert remark in as_markdown(study_page(study))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"claims": [{"text": "x", "cell": "good", "than": "god"}]}, "'god' is no cell"),
        ({"cells": {}}, "cells"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_what_is_wrong_is_named(changed, message, tmp_path):
    with pytest.raises(InputError) as caught:
        study_in(tmp_path, **changed)
    assert message in str(caught.value)


def test_a_cells_own_settings_are_checked_with_its_name(tmp_path):
    study = study_in(tmp_path, cells={"a": {"settings": {"align.negatvies": 3}}}, claims=[])
    with pytest.raises(InputError, match=r"cells\.a: align\.negatvies"):
        study.cell_pipeline("a", 0)
    study = study_in(tmp_path, cells={"a": {"settings": {"seed": 3}}}, claims=[])
    with pytest.raises(InputError, match=r"cells\.a: the study sets seed itself"):
        study.cell_pipeline("a", 0)

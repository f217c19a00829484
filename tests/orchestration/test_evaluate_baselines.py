"""Heuristic baselines and recommenders are evaluated into the same files as language models."""

import json

import pandas as pd
import pytest

from raypo.config import EvaluateConfig, InputError
from raypo.orchestration import evaluation_setup
from raypo.orchestration.evaluate import evaluate
from tests.orchestration.movielens import prepare_slice


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_slice(tmp_path_factory.mktemp("data") / "prepared", maximum_rows=1000)


def config_of(data, output, **settings):
    return EvaluateConfig(data=data, output=output, max_rows=40, num_bootstrap=50, **settings)


@pytest.mark.parametrize("heuristic", ["random", "popularity", "item-knn", "markov-chain"])
def test_a_heuristic_baseline_is_ranked_by_its_scores(data, tmp_path, heuristic):
    scorer = {"length_normalised": True}  # of no effect: its scores have no lengths
    config = config_of(data, tmp_path / "run", heuristic=heuristic, scorer=scorer)
    metrics = evaluate(config)
    assert set(metrics) == {"likelihood"} and metrics["likelihood"]["n"] == 40
    assert "CalibrationError" not in metrics["likelihood"]
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert len(predictions) == 40 and predictions["logps"].map(len).eq(5).all()
    assert predictions["lengths"].isna().all()
    record = json.loads((tmp_path / "run" / "evaluated.json").read_text())
    assert set(record) == {"dataset", "rows", "candidates", "length_normalised"}
    assert record["length_normalised"] is False
    assert not (tmp_path / "run" / "partial").exists()


def test_a_finished_evaluation_is_not_repeated(data, tmp_path, monkeypatch):
    config = config_of(data, tmp_path / "run", heuristic="popularity")
    metrics = evaluate(config)
    written = (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns
    monkeypatch.delattr(evaluation_setup.Baseline, "answers")
    assert evaluate(config) == metrics
    assert (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns == written


def test_a_folder_without_a_recommender_is_an_error_that_leaves_no_output(data, tmp_path):
    with pytest.raises(InputError, match="no trained recommender"):
        evaluate(config_of(data, tmp_path / "run", recommender=tmp_path))
    assert not (tmp_path / "run").exists()


def test_titles_that_exceed_the_context_are_an_error_before_the_output_exists(data, tmp_path):
    settings = {"policy": {"model": "tiny-random"}, "engine": {"max_model_len": 30}}
    with pytest.raises(InputError, match="longest title"):
        evaluate(config_of(data, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()

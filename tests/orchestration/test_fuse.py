"""`raypo fuse` on evaluated recommenders and heuristics, without language models."""

import json
import shutil

import numpy as np
import pytest

from raypo.config import EvaluateConfig, FuseConfig, RecommenderConfig, parse_config
from raypo.data.conditional_logit import fit_conditional_logit, standardised
from raypo.data.dataset import load_dataset, sample_rows
from raypo.data.prepare import prepare
from raypo.errors import InputError
from raypo.evaluation.predictions import read_predictions
from raypo.evaluation.report.files import report_on
from raypo.orchestration.evaluate import evaluate
from raypo.orchestration.fuse import fuse
from raypo.recommenders.heuristics import heuristic_scores
from raypo.recommenders.scoring import score_candidates
from raypo.recommenders.train import load_recommender, train_recommender
from tests.training.inputs import log_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set with an evaluated recommender and two heuristics."""
    folder = tmp_path_factory.mktemp("fuse")
    data = folder / "data"
    prepare(log_config(folder, data))
    train_recommender(RecommenderConfig(data=data, output=folder / "model", max_epochs=2, hidden=8))
    for name, what in {
        "sasrec": {"recommender": folder / "model"},
        "item-knn": {"heuristic": "item-knn"},
        "popularity": {"heuristic": "popularity"},
    }.items():
        evaluate(EvaluateConfig(data=data, output=folder / name, num_bootstrap=20, **what))
    return folder


def fuse_config(folder, output, runs, **changes):
    values = {"data": folder / "data", "output": output, "runs": runs, "num_bootstrap": 50}
    return parse_config(FuseConfig, values | changes, "test")


NAMES = ["sasrec", "item-knn", "popularity"]


def test_weights_are_of_validation_rows_and_are_applied_to_test_rows(folder, tmp_path) -> None:
    config = fuse_config(folder, tmp_path / "fused", [folder / name for name in NAMES])
    result = fuse(config)
    dataset = load_dataset(folder / "data")
    model = load_recommender(folder / "model")

    def features(frame):
        scores = [score_candidates(model, frame)]
        scores += [heuristic_scores(name, dataset, frame) for name in NAMES[1:]]
        return np.stack([standardised(one) for one in scores], axis=2)

    frame = sample_rows(dataset.validation, 1000, 0)
    candidates = np.stack(frame["candidates"].to_list())
    targets = (candidates == frame["target"].to_numpy()[:, None]).argmax(axis=1)
    fit = fit_conditional_logit(features(frame), targets, frame["user_id"].to_numpy())
    assert np.allclose(list(result["weights"].values()), fit.weights, atol=1e-6)
    assert list(result["weights"]) == NAMES
    fused = read_predictions(tmp_path / "fused")
    expected = features(dataset.test) @ fit.weights
    assert np.allclose(np.stack(fused["logps"].to_list()), expected, atol=1e-5)
    metrics = json.loads((tmp_path / "fused/metrics.json").read_text())
    assert set(metrics) == {"likelihood"} and metrics["likelihood"]["n"] == len(dataset.test)
    assert result["added"] is None and "no run is of a language model" in result["sentence"]
    assert json.loads((tmp_path / "fused/fusion.json").read_text()) == result
    assert fuse(config) == result  # recognised


def test_a_fused_model_stands_in_the_report_with_its_weights(folder, tmp_path) -> None:
    fuse(fuse_config(folder, tmp_path / "fused", [folder / name for name in NAMES]))
    given = [str(folder / "sasrec"), f"Both={tmp_path / 'fused'}"]
    page, table, _ = report_on(given, tmp_path / "report.html", "Fused")
    text = page.read_text()
    assert "Fused models" in text and " ± " in text
    lines = table.read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["sasrec", "Both"]


def test_runs_may_have_names(folder, tmp_path) -> None:
    runs = {"One": folder / "sasrec", "Other": folder / "item-knn"}
    result = fuse(fuse_config(folder, tmp_path / "fused", runs))
    assert set(result["weights"]) == {"One", "Other"}


def test_runs_of_other_rows_are_refused(folder, tmp_path) -> None:
    data = folder / "data"
    evaluate(EvaluateConfig(data=data, output=tmp_path / "few", heuristic="popularity", max_rows=5))
    config = fuse_config(folder, tmp_path / "fused", [folder / "sasrec", tmp_path / "few"])
    with pytest.raises(InputError, match=r"'few' .5 rows. were evaluated on different rows"):
        fuse(config)
    evaluate(
        EvaluateConfig(
            data=data, output=tmp_path / "val", heuristic="popularity", split="validation"
        )
    )
    config = fuse_config(folder, tmp_path / "fused", [tmp_path / "val"])
    with pytest.raises(InputError, match="evaluated on validation rows; fuse takes test rows"):
        fuse(config)


def test_what_is_no_evaluation_is_refused(folder, tmp_path) -> None:
    for run in (folder / "model", tmp_path / "absent"):
        with pytest.raises(InputError, match="no evaluated model there"):
            fuse(fuse_config(folder, tmp_path / "fused", [run]))
    shutil.copytree(folder / "sasrec", tmp_path / "two" / "sasrec")
    with pytest.raises(InputError, match="two runs have the same name"):
        fuse_config(folder, tmp_path / "fused", [folder / "sasrec", folder / "sasrec"])

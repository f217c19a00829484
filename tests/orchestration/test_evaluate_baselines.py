"""Heuristic baselines and recommenders are evaluated into the same files as language models."""

import json
import shutil

import pandas as pd
import pytest

from raypo.assets import resolve_model
from raypo.config import EvaluateConfig
from raypo.errors import InputError
from raypo.evaluation.requests import max_constrained_tokens
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


def test_metrics_of_another_data_set_are_not_taken_for_its_own(tmp_path):
    data = prepare_slice(tmp_path / "data", maximum_rows=1000)
    config = config_of(data, tmp_path / "run", heuristic="popularity")
    metrics = evaluate(config)
    assert evaluate(config) == metrics
    shutil.rmtree(data)
    prepare_slice(data, maximum_rows=900)
    with pytest.raises(InputError, match=r"run: was evaluated.* with another data set"):
        evaluate(config)


def test_stored_answers_of_other_weights_are_not_continued(data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(resolve_model("tiny-random"), model)
    settings = {"policy": {"model": str(model)}, "answers": ["likelihood"]}
    config = config_of(data, tmp_path / "run", adapters={"base": None}, **settings)
    evaluation_setup.resolve_evaluation(config)
    evaluation_setup.resolve_evaluation(config)
    shutil.copyfile(
        resolve_model("tiny-random") / "model.safetensors", tmp_path / "copy.safetensors"
    )
    weights = bytearray((tmp_path / "copy.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="with another model;"):
        evaluation_setup.resolve_evaluation(config)


def test_engines_of_4_bit_weights_are_refused(data, tmp_path):
    settings = {"policy": {"model": "tiny-random", "quantisation": "4bit"}}
    with pytest.raises(InputError, match="vLLM engines serve the unquantised model"):
        evaluate(config_of(data, tmp_path / "run", **settings))
    packed = config_of(data, tmp_path / "run", answers=["likelihood"], **settings)
    assert evaluation_setup.resolve_evaluation(packed).models.policy.quantisation == "4bit"


def test_the_head_kernel_needs_a_gpu_before_anything_is_loaded(data, tmp_path):
    settings = {"policy": {"model": "tiny-random", "head_kernel": "triton"}}
    with pytest.raises(InputError, match=r"policy\.head_kernel: triton needs a GPU"):
        evaluate(config_of(data, tmp_path / "run", answers=["likelihood"], **settings))


def test_prompts_fit_the_vllm_scorer(data, tmp_path):
    scorer = {"kind": "vllm", "max_model_len": 100}
    settings = {"policy": {"model": "tiny-random"}, "answers": ["likelihood"], "scorer": scorer}
    encoder = evaluation_setup.resolve_evaluation(
        config_of(data, tmp_path / "run", **settings)
    ).models.encoder
    assert encoder.max_prompt_tokens == 99 - encoder.longest_response()


def test_prompts_leave_room_for_constrained_answers(data, tmp_path):
    settings = {"policy": {"model": "tiny-random"}, "answers": ["constrained"]}
    for context in (300, 200):
        engine = {"max_model_len": context, "max_new_tokens": 4}
        config = config_of(data, tmp_path / str(context), engine=engine, **settings)
        encoder = evaluation_setup.resolve_evaluation(config).models.encoder
        longest = encoder.longest_response()
        assert longest > 4  # otherwise free answers would take more
        assert encoder.max_prompt_tokens == context - max_constrained_tokens(longest)
    with pytest.raises(
        InputError, match=r"engine\.max_model_len=100: constrained answers take up to"
    ):
        engine = {"max_model_len": 100, "max_new_tokens": 4}
        evaluate(config_of(data, tmp_path / "run", engine=engine, **settings))


def test_a_folder_without_a_recommender_is_an_error_that_leaves_no_output(data, tmp_path):
    with pytest.raises(InputError, match="no trained recommender"):
        evaluate(config_of(data, tmp_path / "run", recommender=tmp_path))
    assert not (tmp_path / "run").exists()


def test_titles_that_exceed_the_context_are_an_error_before_the_output_exists(data, tmp_path):
    settings = {"policy": {"model": "tiny-random"}, "engine": {"max_model_len": 30}}
    with pytest.raises(InputError, match="longest title"):
        evaluate(config_of(data, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()

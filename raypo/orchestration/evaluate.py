"""`raypo evaluate`: language models, a recommender or a heuristic baseline on held-out rows."""

from __future__ import annotations

from typing import Any

from raypo.config import EvaluateConfig
from raypo.evaluation.requests import make_requests
from raypo.evaluation.summary import summarise_models
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import synced
from raypo.orchestration.evaluate_catalogue import check_catalogue, evaluate_catalogue
from raypo.orchestration.evaluation_setup import Evaluation, resolve_evaluation
from raypo.orchestration.inference.run import run_inference


@synced
def evaluate(config: EvaluateConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Evaluate and write `predictions.parquet`, `metrics.json` and `evaluated.json`.

    With `catalogue`, `catalogue.parquet` takes the place of `predictions.parquet`.

    A finished evaluation is not repeated, an interrupted one resumes from its stored answers.

    Args:
        config: of the evaluation.
        progress: receives the number of answers.

    Returns:
        The metrics; with `adapters`, metrics by adapter name.

    Raises:
        InputError: an input is wrong; raised before a model is loaded.
    """
    if config.catalogue is not None:
        check_catalogue(config)
    evaluation = resolve_evaluation(config)
    if not evaluation.outputs.finished:
        _run(config, evaluation, progress)
    metrics = evaluation.outputs.read_metrics()
    return metrics if config.adapters is not None else metrics[""]


def _run(config: EvaluateConfig, evaluation: Evaluation, progress: Progress) -> None:
    if config.catalogue is not None:
        evaluate_catalogue(config, evaluation, progress)
        return
    models, options = evaluation.models, evaluation.options
    requests = make_requests(evaluation.rows, models.names, options.requests)
    inference = run_inference(requests, models, options.inference, progress)
    predictions = evaluation.parser.predictions(inference.answers, models.names)
    metrics = summarise_models(predictions, evaluation.popularity, options.metrics)
    evaluation.outputs.write(predictions, metrics, evaluation.record(inference.record))

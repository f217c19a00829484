"""Answers to all requests, in every mode, stored as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from raypo.config import EngineConfig, ScorerConfig
from raypo.evaluation.answer_parsing import ModeAnswers
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.cost import InferenceCost, count_cut_prompts, inference_cost
from raypo.evaluation.elapsed_time import ElapsedTime
from raypo.evaluation.greedy_check import GreedyCheck
from raypo.evaluation.models import Baseline, LanguageModels
from raypo.evaluation.record import InferenceRecord
from raypo.evaluation.requests import Mode, RequestBatch, Requests
from raypo.io.progress import Progress
from raypo.orchestration.cluster import connect, fetch_everywhere
from raypo.orchestration.waiting import wait_for_resources


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of inference.

    Attributes:
        engine: the pool that generates.
        scorer: the pool that ranks.
        num_greedy_checks: generated answers of each model that the policy decodes again.
        partial: folder of the answers so far.
    """

    engine: EngineConfig
    scorer: ScorerConfig
    num_greedy_checks: int
    partial: Path


@dataclass(frozen=True)
class InferenceResult:
    """Answers by mode; what inference of language models reports beside them."""

    answers: Mapping[Mode, ModeAnswers]
    record: InferenceRecord | None


def run_inference(
    requests: Requests,
    models: LanguageModels | Baseline,
    options: InferenceOptions,
    progress: Progress,
) -> InferenceResult:
    """Answer the requests that have no stored answer yet.

    Args:
        requests: columns name, row, permutation, history, candidates, by mode.
        models: what answers them.
        options: pools, checks and the folder of stored answers.
        progress: receives the number of answers.
    """
    if isinstance(models, Baseline):
        frame = models.answers(requests["likelihood"])
        return InferenceResult({"likelihood": ModeAnswers(frame)}, record=None)
    connect()  # before vLLM is imported, which logs on import
    fetch_everywhere(models.adapter_folders)
    answers: dict[Mode, ModeAnswers] = {}
    cost: dict[Mode, InferenceCost] = {}
    for group in _groups(requests):
        with _open_batches(group, options.partial) as batches:
            elapsed = _open_elapsed_time(group, options.partial)
            _infer(batches, models, options, _saving(elapsed, progress))
            seconds = elapsed.seconds
        for batch in batches:
            frame = batch.store.frame()
            answers[batch.mode] = ModeAnswers(frame, batch.errors)
            cost[batch.mode] = inference_cost(batch.requests, frame, models.encoder, seconds)
    cut_prompts = count_cut_prompts(requests, models.encoder)
    checks = _check_generated(requests, answers, models, options)
    return InferenceResult(answers, InferenceRecord(cost, cut_prompts, checks))


def _groups(requests: Requests) -> list[Requests]:
    """Requests of the modes that share a pool: engines generate freely and constrained."""
    generated: Requests = {mode: frame for mode, frame in requests.items() if mode != "likelihood"}
    ranked: Requests = {mode: frame for mode, frame in requests.items() if mode == "likelihood"}
    return [group for group in (generated, ranked) if group]


@contextmanager
def _open_batches(requests: Requests, folder: Path) -> Iterator[list[RequestBatch]]:
    batches = [
        RequestBatch(mode, frame, AnswerStore(folder / f"{mode}.jsonl"))
        for mode, frame in requests.items()
    ]
    try:
        yield batches
    finally:
        for batch in batches:
            batch.store.close()


def _open_elapsed_time(requests: Requests, folder: Path) -> ElapsedTime:
    return ElapsedTime(folder / f"{'-'.join(requests)}.elapsed.json")


def _saving(elapsed: ElapsedTime, progress: Progress) -> Progress:
    def report(done: int, total: int, note: str = "") -> None:
        elapsed.save()
        progress(done, total, note)

    return report


def _infer(
    batches: list[RequestBatch],
    models: LanguageModels,
    options: InferenceOptions,
    progress: Progress,
) -> None:
    wait_for_resources(_bundles(batches, options), "the evaluation", progress)
    # Imported here: both import what logs before connect() silences it.
    if batches[0].mode == "likelihood":
        from raypo.orchestration.inference.score import score

        score(batches[0], models, options.scorer, progress)
    else:
        from raypo.orchestration.inference.generate import generate

        generate(batches, models, options.engine, progress)


def _bundles(batches: list[RequestBatch], options: InferenceOptions) -> list[dict[str, float]]:
    """Resources of the first process of the pool; Ray Data starts the others as there is room."""
    if batches[0].mode == "likelihood":
        return [{"CPU": 1, "GPU": options.scorer.gpus_per_worker}]
    engine = options.engine
    bundle = {"CPU": engine.cpus_per_engine, "GPU": engine.gpus_per_engine}
    return [bundle] * engine.tensor_parallel


def _check_generated(
    requests: Requests,
    answers: Mapping[Mode, ModeAnswers],
    models: LanguageModels,
    options: InferenceOptions,
) -> dict[str, GreedyCheck]:
    if "generate" not in requests or not options.num_greedy_checks:
        return {}
    from raypo.orchestration.inference.policy_tasks import check_answers

    generated: pd.DataFrame = answers["generate"].frame
    return check_answers(
        requests["generate"], generated, models, options.num_greedy_checks, options.engine
    )

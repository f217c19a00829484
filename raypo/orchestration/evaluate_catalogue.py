"""`raypo evaluate catalogue=…`: rankings of the whole catalogue, or of what is retrieved of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sparse

from raypo.config import EvaluateConfig
from raypo.data.dataset import Dataset
from raypo.data.prompts import lists_candidates
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.catalogue.item_statistics import ItemStatistics
from raypo.evaluation.catalogue.metrics import summarise_ranked
from raypo.evaluation.catalogue.ranked import ANSWER_COLUMNS, keep_best, write_ranked
from raypo.evaluation.elapsed_time import ElapsedTime
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.files import write_json
from raypo.io.progress import Progress
from raypo.orchestration.cluster import connect, fetch_everywhere
from raypo.orchestration.evaluation_setup import Evaluation
from raypo.orchestration.waiting import wait_for_resources
from raypo.recommenders.retrieval import (
    CatalogueScorer,
    catalogue_scorer,
    people_repeat,
    rankable,
    retrieve,
)

logger = logging.getLogger("raypo")
_ROWS_AT_A_TIME = 256


def check_catalogue(config: EvaluateConfig) -> None:
    """Check settings that have to fit a ranking of the catalogue, before anything is read.

    Raises:
        InputError: they do not.
    """
    retrieved = _count(config, "retrieved")
    if retrieved is not None and config.retrievers is None:
        raise InputError(
            f"catalogue={config.catalogue}: give retrievers, run folders of recommenders or "
            "popularity, item-knn, markov-chain"
        )
    given = config.model_fields_set
    if "answers" in given and set(config.answers) != {"likelihood"}:
        raise InputError("catalogue: ranks by likelihood; set answers=[likelihood]")
    if config.num_permutations:
        raise InputError("num_permutations: are of candidate sets; leave it out with catalogue")
    baseline = config.recommender is not None or config.heuristic is not None
    if baseline and _count(config, "beam") is not None:
        raise InputError(f"catalogue={config.catalogue}: is of language models; use all")
    if config.scorer.kind == "vllm" and _count(config, "beam") is None:
        raise InputError(
            f"scorer.kind=vllm: ranks the catalogue by beam:K alone; use packed with "
            f"catalogue={config.catalogue}"
        )
    if config.scorer.kind == "vllm" and config.scorer.length_normalised:
        raise InputError(
            "scorer.length_normalised: a beam finds the titles of the highest log-prob, not per "
            "token; leave it out with scorer.kind=vllm"
        )


def _count(config: EvaluateConfig, wanted: str) -> int | None:
    """K of `retrieved:K` or `beam:K`, whichever is wanted; None where it is another."""
    kind, _, count = (config.catalogue or "").partition(":")
    return int(count) if kind == wanted else None


def evaluate_catalogue(config: EvaluateConfig, evaluation: Evaluation, progress: Progress) -> None:
    """Rank, and write `catalogue.parquet`, `metrics.json` and `evaluated.json` of every model.

    Args:
        config: of the evaluation.
        evaluation: its resolved inputs.
        progress: receives the number of ranked rows.

    Raises:
        InputError: the prompts list candidates, of which there is no end.
    """
    dataset, rows = evaluation.dataset, evaluation.rows
    if config.rank_seen is None:
        repeats = people_repeat(TrainingRows.of_frame(dataset.train))
        config = config.model_copy(update={"rank_seen": repeats})
    if not config.rank_seen:
        _warn_of_unreachable(rows)
    candidates = _retrieved(config, dataset, rows)
    models = evaluation.models
    record: dict[str, Any] = {"catalogue": config.catalogue, "rank_seen": config.rank_seen}
    if isinstance(models, LanguageModels):
        _check_template(models, everything=candidates is None)
        if config.scorer.kind == "vllm":
            _refuse_vectors(models)
        ranked, seconds = _by_policies(config, evaluation, models, candidates, progress)
        record["seconds"] = seconds
    else:
        ranked = {"": _by_baseline(config, dataset, rows, candidates)}
    _write(evaluation, ranked, record)


def _write(
    evaluation: Evaluation, ranked: Mapping[str, pd.DataFrame], record: Mapping[str, Any]
) -> None:
    """Write every model's files, its metrics last: they mark it as finished."""
    rows, statistics = evaluation.rows, item_statistics(evaluation.dataset)
    for name, folder in evaluation.outputs.models.items():
        answers = ranked[name].set_index("row").loc[rows["row"], list(ANSWER_COLUMNS)]
        known = rows[["row", "user_id", "history", "target"]].reset_index(drop=True)
        frame = pd.concat([known, answers.reset_index(drop=True)], axis=1)
        for column in ("above", "ties"):
            frame[column] = frame[column].astype("Int64")
        summary = summarise_ranked(frame, statistics, evaluation.options.metrics.resampling)
        folder.mkdir(parents=True, exist_ok=True)
        write_ranked(folder, frame)
        evaluated = evaluation.record(None).as_json(name) | dict(record)
        write_json(folder / "evaluated.json", evaluated)
        write_json(folder / "metrics.json", {"catalogue": summary})
    shutil.rmtree(evaluation.outputs.partial, ignore_errors=True)


def item_statistics(dataset: Dataset) -> ItemStatistics:
    """What metrics over the catalogue know of the training rows."""
    rows = TrainingRows.of_frame(dataset.train)
    shape = (len(rows.user_ids), dataset.num_items)
    ones = np.ones(len(rows.seen))
    interactions = sparse.csr_matrix((ones, np.asarray(rows.seen), rows.seen_offsets), shape)
    return ItemStatistics(dataset.items["popularity"].to_numpy(), interactions)


def _warn_of_unreachable(rows: pd.DataFrame) -> None:
    """Say how many targets are misses because items of the history are not ranked."""
    pairs = zip(rows["history"], rows["target"], strict=True)
    count = sum(target in history for history, target in pairs)
    if count:
        logger.warning(
            "%d of %d targets are in their own history, whose items are not ranked: they count as "
            "misses; rank_seen=true ranks them",
            count,
            len(rows),
        )


def _check_template(models: LanguageModels, everything: bool) -> None:
    template = models.encoder.template
    if everything and (lists_candidates(template) or models.encoder.is_pointwise):
        raise InputError(
            "catalogue: the policy's prompts name candidates, which only catalogue=retrieved:K "
            "has; train one with policy.prompt=history to rank the whole catalogue"
        )


def _refuse_vectors(models: LanguageModels) -> None:
    hints = models.encoder.hints
    if hints is not None and hints.marker is not None:
        raise InputError(
            "scorer.kind=vllm: reads tokens alone, and these prompts have vector hints; use packed"
        )


def _retrieved(
    config: EvaluateConfig, dataset: Dataset, rows: pd.DataFrame
) -> list[list[int]] | None:
    """Retrieved items of each row in random order; None where everything is ranked."""
    count = _count(config, "retrieved")
    if count is None:
        return None
    assert config.retrievers is not None
    scorers = [catalogue_scorer(source, dataset, config.seed) for source in config.retrievers]
    allowed = partial(rankable, num_items=dataset.num_items, with_seen=bool(config.rank_seen))
    found = retrieve(scorers, list(rows["history"]), allowed, count)
    shuffled = []
    for row, items in zip(rows["row"], found, strict=True):
        # Prompts list them: their order says nothing of who found them first.
        order = np.random.default_rng([config.seed, int(row)]).permutation(len(items))
        shuffled.append([items[position] for position in order])
    return shuffled


def _by_baseline(
    config: EvaluateConfig,
    dataset: Dataset,
    rows: pd.DataFrame,
    candidates: list[list[int]] | None,
) -> pd.DataFrame:
    source = config.recommender if config.recommender is not None else config.heuristic
    assert source is not None
    scorer = catalogue_scorer(source, dataset, config.seed)
    kept = [
        asdict(keep_best(items, scores, target)) | {"row": row}
        for row, target, items, scores in _scored(config, scorer, dataset, rows, candidates)
    ]
    return pd.DataFrame(kept)


def _scored(
    config: EvaluateConfig,
    scorer: CatalogueScorer,
    dataset: Dataset,
    rows: pd.DataFrame,
    candidates: list[list[int]] | None,
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Row, target, ranked items and their scores."""
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        part = rows.iloc[start : start + _ROWS_AT_A_TIME]
        histories = list(part["history"])
        scores = scorer(histories)
        allowed = rankable(histories, dataset.num_items, bool(config.rank_seen))
        for number, row in enumerate(part.itertuples()):
            items = np.flatnonzero(allowed[number])
            if candidates is not None:
                items = np.array(candidates[start + number])
            yield int(row.row), int(row.target), items, scores[number][items].astype(np.float64)  # type: ignore[arg-type]


def _by_policies(
    config: EvaluateConfig,
    evaluation: Evaluation,
    models: LanguageModels,
    candidates: list[list[int]] | None,
    progress: Progress,
) -> tuple[Mapping[str, pd.DataFrame], float]:
    """Rankings by model name, and the seconds they took."""
    connect()
    fetch_everywhere(models.adapter_folders)
    scorer = config.scorer
    wait_for_resources([{"CPU": 1, "GPU": scorer.gpus_per_worker}], "the evaluation", progress)
    # Imported here: it imports what logs before connect() silences it.
    from raypo.orchestration.inference.score_catalogue import CatalogueOptions, rank_catalogue

    options = CatalogueOptions(
        everything=candidates is None,
        beam=_count(config, "beam"),
        with_seen=bool(config.rank_seen),
        batch_size=scorer.batch_size,
        token_budget=scorer.token_budget,
        length_normalised=scorer.length_normalised,
    )
    with _batch(evaluation, models, candidates) as batch:
        elapsed = ElapsedTime(evaluation.outputs.partial / "catalogue.elapsed.json")

        def report(done: int, total: int, note: str = "") -> None:
            elapsed.save()
            progress(done, total, note)

        rank_catalogue(batch, models, options, scorer, report)
        frame = batch.store.frame()
    return {name: frame[frame["name"] == name] for name in models.names}, elapsed.seconds


@contextmanager
def _batch(
    evaluation: Evaluation, models: LanguageModels, candidates: list[list[int]] | None
) -> Iterator[RequestBatch]:
    requests = evaluation.rows[["row", "history", "target"]].assign(permutation=0)
    requests["candidates"] = [[] for _ in range(len(requests))]
    if candidates is not None:
        requests["candidates"] = candidates
    named = pd.concat([requests.assign(name=name) for name in models.names], ignore_index=True)
    store = AnswerStore(evaluation.outputs.partial / "catalogue.jsonl")
    try:
        yield RequestBatch("likelihood", named, store)
    finally:
        store.close()

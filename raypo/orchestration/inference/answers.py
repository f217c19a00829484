"""Every way of answering, for every adapter, with answers kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import ray.data  # noqa: F401  sets its loggers up when it is imported, which connect() then quietens

from raypo.assets import resolve_model
from raypo.config import EvaluateConfig
from raypo.data.dataset import Dataset
from raypo.data.tokenisation import Encoder, make_encoder
from raypo.evaluation.answer_parsing import match_answer, match_exactly
from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.candidate_permutations import in_own_order, with_orders
from raypo.evaluation.elapsed_time import ElapsedTime
from raypo.evaluation.predictions import empty_predictions
from raypo.io.progress import Progress
from raypo.orchestration.cluster import connect, fetch_everywhere

Predictions = dict[str, pd.DataFrame]
Way = Literal["generate", "constrained", "likelihood"]


def ask_policy(
    config: EvaluateConfig,
    dataset: Dataset,
    rows: pd.DataFrame,
    adapters: Mapping[str, Path | None],
    progress: Progress,
) -> tuple[Predictions, dict[str, Any]]:
    """Predictions by adapter name, and what was seen while asking.

    Args:
        config: of the evaluation.
        dataset: titles.
        rows: with columns row, user_id, history, target, candidates.
        adapters: name -> adapter folder, None for the base model.
        progress: told of answers.
    """
    connect()  # and quieten: vLLM speaks when it is imported
    fetch_everywhere([folder for folder in adapters.values() if folder is not None])
    model_folder = resolve_model(config.policy.model)
    encoder = make_encoder(config.policy, model_folder, dataset.titles, _room(config))
    predictions = {name: empty_predictions(rows) for name in adapters}
    about: dict[str, Any] = {"cost": {}}
    for ways in _together(config.answers):
        questions = {way: _questions(rows, adapters, config, way) for way in ways}
        kept = {way: AnswerStore(config.output / "partial" / f"{way}.jsonl") for way in ways}
        spent = ElapsedTime(config.output / "partial" / f"{'-'.join(ways)}.spent.json")
        try:
            put = _rank if ways == ["likelihood"] else _generate
            told = _counted(progress, spent)
            errors = put(config, questions, kept, adapters, model_folder, encoder, told)
        finally:
            for one in kept.values():
                one.close()
        seconds = spent.seconds
        for way in ways:
            answers = kept[way].frame()
            about["cost"][way] = _cost(answers, questions[way], encoder, seconds)
            _fill(predictions, way, answers, errors[way], dataset.titles, config)
    about["cut_prompts"] = encoder.cut_prompts
    if "generate" in config.answers and config.num_greedy_checks:
        about["greedy_check"] = _greedy_check(config, predictions, adapters, model_folder, encoder)
    return predictions, about


def _counted(progress: Progress, spent: ElapsedTime) -> Progress:
    def tell(done: int, total: int, note: str = "") -> None:
        spent.keep()
        progress(done, total, note)

    return tell


def _room(config: EvaluateConfig) -> int | None:
    """Tokens a prompt may have.

    The engines' context is the shorter one, and all ways of answering read the same prompts.
    """
    engine = config.engine
    generates = {"generate", "constrained"} & set(config.answers)
    return engine.max_model_len - engine.max_new_tokens if generates else None


def _together(ways: Sequence[Way]) -> list[list[Way]]:
    """Ways in the groups that share a start: the engines answer freely and constrained."""
    engines: list[Way] = [way for way in ways if way != "likelihood"]
    ranking: list[Way] = [way for way in ways if way == "likelihood"]
    return [group for group in (engines, ranking) if group]


def _questions(
    rows: pd.DataFrame, adapters: Mapping[str, Path | None], config: EvaluateConfig, way: Way
) -> pd.DataFrame:
    if way == "likelihood":
        asked = with_orders(rows, config.num_permutations, config.seed)
    else:
        asked = with_orders(rows.head(config.generate_rows or len(rows)), 0, config.seed)
    return pd.concat([asked.assign(name=name) for name in adapters], ignore_index=True)


def _generate(
    config: EvaluateConfig,
    questions: Mapping[Way, pd.DataFrame],
    kept: Mapping[Way, AnswerStore],
    adapters: Mapping[str, Path | None],
    model_folder: Path,
    encoder: Encoder,
    progress: Progress,
) -> dict[Way, dict[str, str]]:
    from raypo.orchestration.inference.generate import RequestBatch, ask

    sheets = {
        way: RequestBatch(questions[way], kept[way], way == "constrained") for way in questions
    }
    dtype = config.policy.dtype
    ask(list(sheets.values()), adapters, model_folder, encoder, config.engine, dtype, progress)
    return {way: sheet.errors for way, sheet in sheets.items()}


def _rank(
    config: EvaluateConfig,
    questions: Mapping[Way, pd.DataFrame],
    kept: Mapping[Way, AnswerStore],
    adapters: Mapping[str, Path | None],
    model_folder: Path,
    encoder: Encoder,
    progress: Progress,
) -> dict[Way, dict[str, str]]:
    from raypo.orchestration.inference.score import score

    (asked,), (answers,) = questions.values(), kept.values()
    score(asked, adapters, config.policy, model_folder, encoder, config.scorer, answers, progress)
    return {"likelihood": {}}


def _fill(
    predictions: Predictions,
    way: Way,
    answers: pd.DataFrame,
    errors: Mapping[str, str],
    titles: list[str],
    config: EvaluateConfig,
) -> None:
    for name, frame in predictions.items():
        own = answers[answers["name"] == name] if len(answers) else answers
        if way == "likelihood":
            _fill_scores(frame, own, config)
            continue
        said = dict(zip(own["row"], own["answer"], strict=True)) if len(own) else {}
        column = "answer" if way == "generate" else "constrained"
        frame[column] = frame["row"].map(said).astype(object)
        failed = frame["row"].map(lambda row, n=name: errors.get(f"{n} {row}"))
        frame["error"] = frame["error"].where(frame["error"].notna(), failed)
        if way == "generate":
            frame["answer_item"] = _items(frame, column, titles, match_answer)
            frame["exact_item"] = _items(frame, column, titles, match_exactly)
        else:
            frame["constrained_item"] = _items(frame, column, titles, match_exactly)


def _items(
    frame: pd.DataFrame,
    column: str,
    titles: list[str],
    match: Callable[[str, list[str]], int | None],
) -> Any:
    picked = []
    for answer, items in zip(frame[column], frame["candidates"], strict=True):
        said = answer if isinstance(answer, str) else ""
        found = match(said, [titles[item] for item in items])
        picked.append(None if found is None else int(items[found]))
    return pd.array(picked, dtype="Int64")


def _fill_scores(frame: pd.DataFrame, answers: pd.DataFrame, config: EvaluateConfig) -> None:
    scores: dict[int, dict[int, np.ndarray]] = {}
    lengths = {}
    for answer in answers.itertuples():
        row, order = int(answer.row), int(answer.order)  # type: ignore[arg-type]
        own = in_own_order(np.array(answer.logps), row, order, config.seed)
        scores.setdefault(row, {})[order] = own
        if order == 0:
            lengths[row] = answer.lengths
    frame["logps"] = [scores[row][0] for row in frame["row"]]
    frame["lengths"] = [lengths[row] for row in frame["row"]]
    if config.num_permutations:
        orders = range(1, config.num_permutations + 1)
        frame["order_logps"] = [[list(scores[row][k]) for k in orders] for row in frame["row"]]


def _cost(
    answers: pd.DataFrame, questions: pd.DataFrame, encoder: Encoder, seconds: float
) -> dict[str, Any]:
    """How long all answers took, over all calls, the starts of engines or scorers included.

    Ways that share engines share the seconds.
    """
    prompts = [
        len(encoder.prompt(history, candidates))
        for history, candidates in zip(
            questions["history"].head(20), questions["candidates"].head(20), strict=True
        )
    ]
    written = float(answers["tokens"].mean()) if "tokens" in answers else 0.0
    return {
        "seconds": round(seconds, 1),
        "answers": len(answers),
        "answers_per_second": round(len(answers) / seconds, 3) if len(answers) else None,
        "prompt_tokens": round(float(np.mean(prompts)), 1),
        "answer_tokens": round(written, 1),
    }


def _greedy_check(
    config: EvaluateConfig,
    predictions: Predictions,
    adapters: Mapping[str, Path | None],
    model_folder: Path,
    encoder: Encoder,
) -> dict[str, dict[str, Any]]:
    """Engines' answers beside the policy's own greedy decoding, for the first rows of each model.

    An engine that leaves an adapter out, or takes another's, shows here.
    """
    from raypo.policy.adapters import AdapterScorer
    from raypo.policy.model import greedy_answer

    policy = AdapterScorer(config.policy, model_folder, adapters)
    stop = encoder.tokenizer.eos_token_id
    checked = {}
    for name, frame in predictions.items():
        rows = frame[frame["answer"].notna()].head(config.num_greedy_checks)
        same = 0
        with policy.using(name) as model:
            for row in rows.itertuples():
                prompt = encoder.prompt(row.history, row.candidates)
                tokens = greedy_answer(model, prompt, config.engine.max_new_tokens, stop)
                text = encoder.decode(tokens).strip().partition("\n")[0].strip()
                same += text == row.answer
        checked[name] = {"rows": len(rows), "same": same}
    return checked

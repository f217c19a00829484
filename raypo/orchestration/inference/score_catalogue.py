"""Rankings of the whole catalogue, or of what was retrieved of it, from a Ray Data pool.

The pool has policies, or vLLM engines for a beam search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from raypo.config import ScorerConfig
from raypo.data.tokenisation import Encoder
from raypo.evaluation.catalogue.ranked import ANSWER_COLUMNS, keep_best
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.progress import Progress
from raypo.orchestration.inference.policy_tasks import merge_on_cluster
from raypo.orchestration.inference.score import refuse_missing, run_pool
from raypo.policy.adapters import AdapterScorer
from raypo.policy.beam import search_titles
from raypo.policy.catalogue import CatalogueTree, score_catalogue
from raypo.policy.packing import Markers
from raypo.policy.precision import dtype_name
from raypo.policy.projector import Projector
from raypo.policy.scoring import score_users
from raypo.policy.title_tree import title_tree

_Prompt = tuple[Sequence[int], Markers | None, Projector | None]
_Scored = tuple[np.ndarray, np.ndarray]  # items and their log-probs


@dataclass(frozen=True)
class CatalogueOptions:
    """What is ranked.

    Attributes:
        everything: the whole catalogue; otherwise the candidates of each request.
        beam: items that a beam search of this width finds in it; None ranks all.
        with_seen: also items of the history, where everything is ranked.
        batch_size: users per forward pass, of candidates.
        token_budget: tokens of titles per forward pass, where everything is ranked.
        length_normalised: rank by log-prob per token.
    """

    everything: bool
    beam: int | None
    with_seen: bool
    batch_size: int
    token_budget: int
    length_normalised: bool


def rank_catalogue(
    batch: RequestBatch,
    models: LanguageModels,
    options: CatalogueOptions,
    config: ScorerConfig,
    progress: Progress,
) -> None:
    """Store the best items of each request without an answer, and where its target stands.

    Args:
        batch: requests with columns name, row, permutation, history, candidates and target.
        models: what ranks.
        options: what is ranked.
        config: the pool.
        progress: receives the number of ranked requests.
    """
    missing = batch.store.missing(batch.requests)
    if not len(missing):
        return
    progress(len(batch.store), len(batch.requests), "loading scorers")
    read = missing[["name", "row", "permutation", "history", "candidates", "target"]]
    if config.kind == "packed":
        run_pool(_Ranker, (models, options), read, config, batch, progress, _kept)
    else:
        _rank_by_engines(read, batch, models, options, config, progress)
    refuse_missing(batch)


def _rank_by_engines(
    requests: pd.DataFrame,
    batch: RequestBatch,
    models: LanguageModels,
    options: CatalogueOptions,
    config: ScorerConfig,
    progress: Progress,
) -> None:
    """Beam searches in vLLM: one engine per model, as for log-probs of candidates."""
    for name, folder in models.adapters.items():
        own = requests[requests["name"] == name]
        if len(own):
            merged = merge_on_cluster(models, folder, config)
            arguments = (merged, models, options, config)
            run_pool(_VllmRanker, arguments, own, config, batch, progress, _kept)


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: _plain(row[column]) for column in ANSWER_COLUMNS}


def _plain(value: Any) -> Any:
    if isinstance(value, list | np.ndarray):
        return np.asarray(value).tolist()
    return None if value is None or value < 0 else int(value)


class _Ranker:
    """One base model in memory with every adapter; a batch may mix them."""

    def __init__(self, models: LanguageModels, options: CatalogueOptions) -> None:
        self._policy = AdapterScorer(models.policy, models.folder, models.adapters)
        self._encoder, self._options = models.encoder, options
        titles = _titles(self._encoder)
        self._lengths = np.array([len(title) for title in titles])
        self._tree = CatalogueTree(titles, options.token_budget)
        self._root = title_tree(titles)

    def __call__(self, requests: pd.DataFrame) -> pd.DataFrame:
        rank = self._rank_everything if self._options.everything else self._rank_candidates
        parts = [rank(str(name), own) for name, own in requests.groupby("name", sort=False)]
        return pd.concat(parts, ignore_index=True)

    def _rank_everything(self, name: str, requests: pd.DataFrame) -> pd.DataFrame:
        empty: list[list[int]] = [[] for _ in range(len(requests))]
        users = self._encoder.encode(requests["history"], empty, empty)
        projector = self._policy.projector(name)
        scored = []
        for number, history in enumerate(requests["history"]):
            markers = users.markers[number] if users.markers and projector is not None else None
            excluded = _excluded(history, self._options)
            prompt = (users.prompts[number], markers, projector)
            with self._policy.using(name) as model:
                find = self._all if self._options.beam is None else self._likeliest
                scored.append(find(model, prompt, excluded))
        return self._answers(requests, lambda position: scored[position])

    def _all(self, model: nn.Module, given: _Prompt, excluded: set[int]) -> _Scored:
        prompt, markers, projector = given
        pad = self._encoder.tokenizer.pad_token_id
        logps = score_catalogue(model, prompt, self._tree, pad, markers, projector).numpy()
        items = np.setdiff1d(np.arange(len(logps)), list(excluded))
        return items, logps[items]

    def _likeliest(self, model: nn.Module, given: _Prompt, excluded: set[int]) -> _Scored:
        prompt, markers, projector = given
        beam = self._options.beam
        assert beam is not None
        found = search_titles(model, prompt, self._root, beam, beam, excluded, markers, projector)
        return np.array(found.titles, dtype=np.int64), np.array(found.logps)

    def _rank_candidates(self, name: str, requests: pd.DataFrame) -> pd.DataFrame:
        same_number = requests.groupby(requests["candidates"].map(len), sort=False)
        return pd.concat([self._rank_as_many(name, own) for _, own in same_number])

    def _rank_as_many(self, name: str, requests: pd.DataFrame) -> pd.DataFrame:
        """Requests that have the same number of candidates."""
        users = self._encoder.encode(requests["history"], requests["candidates"])
        pad = self._encoder.tokenizer.pad_token_id
        logps = score_users(self._policy, name, users, pad, self._options.batch_size).numpy()
        candidates = [np.asarray(one) for one in requests["candidates"]]
        return self._answers(requests, lambda position: (candidates[position], logps[position]))

    def _answers(self, requests: pd.DataFrame, scored: Callable[[int], _Scored]) -> pd.DataFrame:
        scores = []
        for position in range(len(requests)):
            items, logps = scored(position)
            own = logps.astype(np.float64)
            if self._options.length_normalised and not self._encoder.is_pointwise:
                own = own / self._lengths[items]
            scores.append((items, own))
        return _best(requests, scores)


class _VllmRanker:
    """A vLLM engine of one merged model, which finds items by a beam search."""

    def __init__(
        self, folder: Path, models: LanguageModels, options: CatalogueOptions, config: ScorerConfig
    ) -> None:
        from raypo.evaluation.vllm_beam import VllmBeam

        dtype = dtype_name(models.policy, config.gpus_per_worker > 0)
        self._engine = VllmBeam(folder, dtype, config.max_model_len, config.kv_cache_gib)
        self._encoder, self._options = models.encoder, options
        self._root = title_tree(_titles(models.encoder))

    def __call__(self, requests: pd.DataFrame) -> pd.DataFrame:
        empty: list[list[int]] = [[] for _ in range(len(requests))]
        users = self._encoder.encode(requests["history"], empty, empty)
        excluded = [_excluded(history, self._options) for history in requests["history"]]
        beam = self._options.beam
        assert beam is not None
        found = self._engine.search(users.prompts, self._root, beam, beam, excluded)
        return _best(
            requests, [(np.array(one.titles, dtype=np.int64), np.array(one.logps)) for one in found]
        )


def _titles(encoder: Encoder) -> list[list[int]]:
    return [encoder.response(item) for item in range(len(encoder.titles))]


def _excluded(history: Sequence[int], options: CatalogueOptions) -> set[int]:
    return set() if options.with_seen else set(np.asarray(history).tolist())


def _best(requests: pd.DataFrame, scored: Sequence[_Scored]) -> pd.DataFrame:
    """The answers to requests from the scores of their items."""
    answers = requests[["name", "row", "permutation"]].reset_index(drop=True)
    kept = []
    for target, (items, scores) in zip(requests["target"], scored, strict=True):
        best = asdict(keep_best(items, scores, int(target)))
        # -1 stands for missing: Arrow's blocks would make floats of integers with nulls.
        kept.append({key: -1 if value is None else value for key, value in best.items()})
    for column in ANSWER_COLUMNS:
        answers[column] = [one[column] for one in kept]
    return answers

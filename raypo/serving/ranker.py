"""Ranking of requests: a recommender retrieves, a language model ranks, both may be fused.

Every candidate of a user is a response behind one prompt, which is computed once; users are packed
into common forward passes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.data.dataset import load_dataset
from raypo.data.tokenisation import EncodedUsers, Encoder, make_encoder
from raypo.errors import InputError
from raypo.policy.adapters import AdapterScorer, check_adapter
from raypo.policy.prompt_record import with_recorded_prompt
from raypo.policy.scoring import score_users
from raypo.recommenders.hint_sources import HintInputs, held_out_hints
from raypo.recommenders.hints import ModelScore
from raypo.recommenders.retrieval import best_items, recommender_scores
from raypo.recommenders.train import load_recommender
from raypo.serving.fused import FusedScore
from raypo.serving.passes import plan_passes, take
from raypo.serving.runs import FUSED, Served

RECOMMENDER = "recommender"


@dataclass(frozen=True)
class Question:
    """A request for a ranking.

    Attributes:
        model: name of the model.
        history: item numbers, oldest first.
        candidates: item numbers; None has the recommender retrieve them.
        retrieved: how many it retrieves.
        excluded: item numbers that it does not retrieve.
        allowed: bool [items], what it may retrieve; None is everything.
    """

    model: str
    history: tuple[int, ...]
    candidates: tuple[int, ...] | None = None
    retrieved: int = 20
    excluded: tuple[int, ...] = ()
    allowed: np.ndarray | None = None


@dataclass(frozen=True)
class Ranking:
    """The answer to a question, with k candidates.

    Attributes:
        model: name of the model.
        candidates: item numbers, as given or retrieved.
        scores: [k] by which they rank, the highest first.
        logps: [k] of the language model, in nats; None without one.
        recommended: [k] scores of the recommender; None without one.
        seconds: of each step.
    """

    model: str
    candidates: list[int]
    scores: list[float]
    logps: list[float] | None
    recommended: list[float] | None
    seconds: dict[str, float] = field(default_factory=dict)


class Ranker:
    """The models of finished runs in memory, which answer questions together."""

    def __init__(self, served: Served, token_budget: int = 4096) -> None:
        """Load the data set, the recommender and the base model with its adapters.

        Args:
            served: what to load; its adapters are left to `set_adapters`.
            token_budget: tokens of one forward pass, at most, unless one user has more.

        Raises:
            InputError: a run is incomplete.
        """
        self._served, self._token_budget = served, token_budget
        self._lock = threading.Lock()  # adapters do not change under a ranking
        self._dataset = load_dataset(served.data)
        self._recommender = load_recommender(served.recommender) if served.recommender else None
        self._fused = FusedScore(served.fusion, self._dataset) if served.fusion else None
        self._folder = resolve_model(served.model)
        self._policy = AdapterScorer(PolicyConfig(model=served.model), self._folder, {})
        self._by_prompt: dict[str, Encoder] = {}  # hints take long to make
        self._adapters: dict[str, Path | None] = {}
        self._encoders: dict[str, Encoder] = {}

    @property
    def names(self) -> list[str]:
        """Names that questions can ask for."""
        fused = [FUSED] if self._fused is not None and self._fused_adapter is not None else []
        retrieving = [RECOMMENDER] if self._recommender is not None else []
        return [*self._adapters, *fused, *retrieving]

    def set_adapters(self, adapters: Mapping[str, Path | None]) -> dict[str, str]:
        """Load adapters, and drop those that are not among them.

        Args:
            adapters: name -> adapter folder; None is the base model.

        Returns:
            name -> problem of adapters that cannot be used. Where one of the name was loaded
            before, it stays.
        """
        with self._lock:
            return self._set_adapters(adapters)

    def _set_adapters(self, adapters: Mapping[str, Path | None]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for name in [one for one in self._adapters if one not in adapters]:
            self._policy.remove(name)
            del self._adapters[name], self._encoders[name]
        # The base model reads the prompts of the adapters beside it, and comes last.
        for name in sorted(adapters, key=lambda name: adapters[name] is None):
            try:
                self._add(name, adapters[name])
            except InputError as error:
                refused[name] = str(error)
        order = [name for name in adapters if name in self._adapters]
        self._adapters = {name: self._adapters[name] for name in order}
        return refused

    def _add(self, name: str, adapter: Path | None) -> None:
        if name in (FUSED, RECOMMENDER):
            raise InputError(f"model {name!r}: the name is taken")
        last = [one for one in self._adapters.values() if one is not None][-1:]
        if adapter is not None:
            check_adapter(adapter)
        encoder = self._encoder([adapter] if adapter is not None else last)
        self._policy.add(name, adapter)
        self._adapters[name], self._encoders[name] = adapter, encoder

    def _encoder(self, adapters: Sequence[Path]) -> Encoder:
        config = PolicyConfig(model=self._served.model)
        policy, template = with_recorded_prompt(config, adapters)
        key = f"{policy.model_dump_json()} {template}"
        if key not in self._by_prompt:
            hints = None
            if policy.hints != "none":
                hints = held_out_hints(policy, HintInputs.of(self._dataset))
            self._by_prompt[key] = make_encoder(
                policy,
                self._folder,
                self._dataset.titles,
                hints=hints,
                template=template,
                texts=self._dataset.given_texts,
            )
        return self._by_prompt[key]

    @torch.no_grad()
    def retrieve(self, question: Question) -> list[int]:
        """The items that the recommender scores highest, the best first.

        Raises:
            InputError: the runs have no recommender, or filters leave nothing.
        """
        if self._recommender is None:
            raise InputError("candidates: required, as these runs have no recommender to retrieve")
        scores = recommender_scores(self._recommender, [question.history])
        allowed = np.ones(scores.shape, dtype=bool)
        allowed[0, list(question.excluded)] = False
        if question.allowed is not None:
            allowed &= question.allowed
        (found,) = best_items(scores, allowed, question.retrieved)
        if not found:
            raise InputError("filters: leave no item of the catalogue")
        return found

    def rank(self, questions: Sequence[Question]) -> list[Ranking]:
        """Answer questions, those of one model in common passes.

        Raises:
            InputError: a model is unknown.
        """
        with self._lock:
            return self._rank(questions)

    def _rank(self, questions: Sequence[Question]) -> list[Ranking]:
        started = time.perf_counter()
        for question in questions:
            if question.model not in self.names:
                raise InputError(f"model {question.model!r}: known are {', '.join(self.names)}")
        listed = [
            self.retrieve(one) if one.candidates is None else list(one.candidates)
            for one in questions
        ]
        recommended = [
            self._recommended(one.history, items)
            for one, items in zip(questions, listed, strict=True)
        ]
        retrieved = time.perf_counter()
        logps = self._logps(questions, listed)
        seconds = {
            "retrieval": retrieved - started,
            "language_model": time.perf_counter() - retrieved,
        }
        return [
            self._ranking(*answer, seconds)
            for answer in zip(questions, listed, recommended, logps, strict=True)
        ]

    def rank_all(self, questions: Sequence[Question]) -> list[Ranking | str]:
        """As `rank`; a question that cannot be answered has what is wrong with it."""
        try:
            return list(self.rank(questions))
        except InputError:
            return [self._rank_one(question) for question in questions]

    def _rank_one(self, question: Question) -> Ranking | str:
        try:
            return self.rank([question])[0]
        except InputError as error:
            return str(error)

    def _ranking(
        self,
        question: Question,
        candidates: list[int],
        recommended: np.ndarray | None,
        logps: np.ndarray | None,
        seconds: dict[str, float],
    ) -> Ranking:
        scores = recommended if logps is None else logps
        if question.model == FUSED:
            assert self._fused is not None and logps is not None
            scores = self._fused(question.history, candidates, logps)
        assert scores is not None
        return Ranking(
            question.model,
            candidates,
            [float(score) for score in scores],
            None if logps is None else [float(one) for one in logps],
            None if recommended is None else [float(one) for one in recommended],
            seconds,
        )

    def _recommended(self, history: Sequence[int], candidates: list[int]) -> np.ndarray | None:
        if self._recommender is None:
            return None
        scores = ModelScore(self._recommender)([history], np.array([candidates]))
        return np.asarray(scores[0])

    def _logps(
        self, questions: Sequence[Question], listed: Sequence[list[int]]
    ) -> list[np.ndarray | None]:
        """Log-probs [k] of each question's candidates; None for the recommender alone."""
        by_model: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            name = self._adapter_name(question.model)
            if name is not None:
                by_model.setdefault(name, []).append(number)
        found: list[np.ndarray | None] = [None] * len(questions)
        for name, numbers in by_model.items():
            users = self._encode(
                name,
                [questions[number].history for number in numbers],
                [listed[number] for number in numbers],
            )
            for chosen in plan_passes(users, self._token_budget):
                scored = self._score(name, take(users, chosen))
                for user, own in zip(chosen, scored, strict=True):
                    found[numbers[user]] = own[: len(listed[numbers[user]])]
        return found

    def _encode(
        self, name: str, histories: Sequence[Sequence[int]], listed: Sequence[Sequence[int]]
    ) -> EncodedUsers:
        """Users with any numbers of candidates; those with as many are encoded together."""
        by_size: dict[int, list[int]] = {}
        for place, items in enumerate(listed):
            by_size.setdefault(len(items), []).append(place)
        encoder = self._encoders[name]
        groups = [
            encoder.encode([histories[one] for one in places], [listed[one] for one in places])
            for places in by_size.values()
        ]
        order = np.argsort([one for places in by_size.values() for one in places])

        def in_order(parts: Iterable[Sequence[Any]]) -> list[Any]:
            joined = [one for part in parts for one in part]
            return [joined[place] for place in order]

        return EncodedUsers(
            in_order(users.prompts for users in groups),
            in_order(users.responses for users in groups),
            in_order(users.markers or () for users in groups) if groups[0].markers else None,
            encoder.is_pointwise,
        )

    def _adapter_name(self, model: str) -> str | None:
        if model == RECOMMENDER:
            return None
        return self._fused_adapter if model == FUSED else model

    @property
    def _fused_adapter(self) -> str | None:
        """The name under which the fused model's adapter is loaded; None where it is not."""
        wanted = self._served.fusion.adapter if self._served.fusion is not None else None
        return next((name for name, one in self._adapters.items() if one and one == wanted), None)

    def _score(self, name: str, users: EncodedUsers) -> np.ndarray:
        """Log-probs [b, k] of a model, from one forward pass."""
        pad = self._encoders[name].tokenizer.pad_token_id
        logps = score_users(self._policy, name, users, pad, len(users.prompts))
        return np.asarray(logps.numpy(), dtype=np.float64)

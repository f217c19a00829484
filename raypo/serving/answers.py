"""Requests to questions for the backend, and its rankings to answers."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from raypo.config.serving import Limits
from raypo.recommenders.hints import ranks_of
from raypo.serving.backend import Backend, Models, Overloaded, Refused
from raypo.serving.catalogue import Catalogue, Example
from raypo.serving.problems import ProblemError, wrong_field
from raypo.serving.ranker import Question, Ranking
from raypo.serving.schemas import (
    Document,
    LanguageModelOpinion,
    RankedItem,
    RankResponse,
    RecommenderOpinion,
    RecommendRequest,
    RerankedDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
)

_RETRY_SECONDS = 1
_QUERY_SEPARATOR = re.compile(r"[;\n]")


@dataclass(frozen=True)
class Service:
    """What the interface works with.

    Attributes:
        backend: ranks.
        catalogue: the items.
        limits: of requests.
        retrieved: items that the recommender retrieves for the language model.
        token: that requests must bring; None asks for none.
        default_model: of requests that name none; None is the last one.
        examples: test rows for the page.
    """

    backend: Backend
    catalogue: Catalogue
    limits: Limits
    retrieved: int = 20
    token: str | None = None
    default_model: str | None = None
    examples: Sequence[Example] = ()


async def recommend(service: Service, body: RecommendRequest) -> RankResponse:
    """Items of the whole catalogue: the recommender's best, ranked.

    Raises:
        ProblemError: the request cannot be answered.
    """
    history = resolve_items(service, body.history, "history", service.limits.history)
    excluded = resolve_items(service, body.filters.exclude, "filters.exclude", 10_000)
    if not body.filters.seen:
        excluded = (*excluded, *history)
    allowed: np.ndarray | None = None
    if body.filters.text:
        allowed = service.catalogue.holding(body.filters.text)
    answer = await ranked(
        service,
        body.model,
        history,
        None,
        retrieved=max(body.k, service.retrieved),
        excluded=excluded,
        allowed=allowed,
    )
    return answer.model_copy(update={"items": answer.items[: body.k]})


async def ranked(
    service: Service,
    model: str | None,
    history: tuple[int, ...],
    candidates: tuple[int, ...] | None,
    retrieved: int = 1,
    excluded: tuple[int, ...] = (),
    allowed: np.ndarray | None = None,
) -> RankResponse:
    """Candidates, or what the recommender retrieves, ranked.

    Args:
        service: what to ask.
        model: its name; None is the default one.
        history: item numbers, oldest first.
        candidates: item numbers; None has the recommender retrieve them.
        retrieved: how many it retrieves.
        excluded: item numbers that it does not retrieve.
        allowed: bool [items], what it may retrieve; None is everything.

    Raises:
        ProblemError: the request cannot be answered.
    """
    started = time.perf_counter()
    question = Question(
        await _model(service, model),
        history,
        candidates,
        retrieved,
        excluded,
        allowed,
    )
    if candidates is not None and len(set(candidates)) < len(candidates):
        raise wrong_field("candidates", "names an item twice")
    ranking = await _ask(service, question)
    milliseconds = {name: 1000 * seconds for name, seconds in ranking.seconds.items()}
    milliseconds["total"] = 1000 * (time.perf_counter() - started)
    return RankResponse(
        model=ranking.model,
        items=_ranked_items(service.catalogue, ranking),
        milliseconds={name: round(value, 2) for name, value in milliseconds.items()},
    )


async def rerank(service: Service, body: RerankRequest) -> RerankResponse:
    """Documents ranked after a query, which is the history.

    Raises:
        ProblemError: the request cannot be answered.
    """
    history = [part.strip() for part in _QUERY_SEPARATOR.split(body.query) if part.strip()]
    if not history:
        raise wrong_field("query", "expected ids or titles, one on each line")
    texts = [one.text if isinstance(one, Document) else one for one in body.documents]
    numbers = resolve_items(service, texts, "documents", service.limits.candidates)
    distinct = tuple(dict.fromkeys(numbers))
    question = Question(
        await _model(service, body.model),
        resolve_items(service, history, "query", service.limits.history),
        distinct,
    )
    ranking = await _ask(service, question)
    share = dict(zip(distinct, softmax(np.array(ranking.scores)).tolist(), strict=True))
    best = sorted(range(len(texts)), key=lambda index: -share[numbers[index]])
    return RerankResponse(
        id=f"rerank-{uuid.uuid4().hex}",
        model=ranking.model,
        results=[
            RerankResult(
                index=index,
                relevance_score=share[numbers[index]],
                document=RerankedDocument(text=texts[index]) if body.return_documents else None,
            )
            for index in best[: body.top_n]
        ],
        usage={"total_tokens": 0},
    )


def _ranked_items(catalogue: Catalogue, ranking: Ranking) -> list[RankedItem]:
    """The candidates, the best first."""
    ranks = ranks_of(ranking.scores)
    recommended, logps = (
        [] if scores is None else ranks_of(scores).tolist()
        for scores in (ranking.recommended, ranking.logps)
    )
    items = []
    for place in np.argsort(ranks):
        item = catalogue[ranking.candidates[place]]
        items.append(
            RankedItem(
                **vars(item),
                rank=int(ranks[place]),
                score=ranking.scores[place],
                recommender=RecommenderOpinion(
                    score=ranking.recommended[place], rank=recommended[place]
                )
                if ranking.recommended is not None
                else None,
                language_model=LanguageModelOpinion(logp=ranking.logps[place], rank=logps[place])
                if ranking.logps is not None
                else None,
            )
        )
    return items


async def list_models(service: Service) -> Models:
    """The models that requests can ask for.

    Raises:
        ProblemError: too many requests wait.
    """
    try:
        return await service.backend.models()
    except Overloaded:
        raise _too_busy() from None


def _too_busy() -> ProblemError:
    headers = {"Retry-After": str(_RETRY_SECONDS)}
    return ProblemError(503, "too many requests wait", headers=headers)


async def _ask(service: Service, question: Question) -> Ranking:
    try:
        return await service.backend.rank(question)
    except Overloaded:
        raise _too_busy() from None
    except Refused as error:
        raise ProblemError(422, str(error)) from None
    except TimeoutError:
        limit = service.limits.timeout_s
        raise ProblemError(504, f"the request took more than {limit:g} seconds") from None


async def _model(service: Service, name: str | None) -> str:
    names = (await list_models(service)).names
    if name is None or name == "":
        return default_model(service, names)
    if name not in names:
        raise wrong_field("model", f"unknown; known are {', '.join(names)}")
    return name


def default_model(service: Service, names: Sequence[str]) -> str:
    """The model of requests that name none.

    Raises:
        ProblemError: no model is loaded.
    """
    if not names:
        raise ProblemError(503, "no model is loaded yet", headers={"Retry-After": "5"})
    if service.default_model in names:
        return str(service.default_model)
    # What comes last in training is what was meant; the recommender alone stands behind all.
    return [name for name in names if name != "recommender"][-1]


def resolve_items(
    service: Service, names: Sequence[str], field: str, limit: int
) -> tuple[int, ...]:
    """Numbers of items by id or title.

    Raises:
        ProblemError: too many, or an item is unknown; it names the field.
    """
    if len(names) > limit:
        raise wrong_field(field, f"{len(names)} items, more than the {limit} that are allowed")
    numbers = []
    for position, name in enumerate(names):
        number = service.catalogue.number(name)
        if number is None:
            raise wrong_field(f"{field}[{position}]", f"unknown item {name!r}")
        numbers.append(number)
    return tuple(numbers)

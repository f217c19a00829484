"""The HTTP interface: requests are checked and resolved here, and ranked by the backend."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import resources

from fastapi import Depends, FastAPI, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST as PROMETHEUS

from raypo.serving import answers
from raypo.serving.answers import Service
from raypo.serving.doors import BodyLimit, check_token
from raypo.serving.meter import Meter
from raypo.serving.problems import ProblemError, answer_problems
from raypo.serving.schemas import (
    PROBLEM_RESPONSES,
    CatalogueItem,
    ExampleUser,
    ItemList,
    ModelEntry,
    ModelList,
    RankRequest,
    RankResponse,
    RecommendRequest,
    RefusedModel,
    RerankRequest,
    RerankResponse,
)

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# The page loads nothing but its own files, and no other page may frame it.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors "
    "'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(service: Service) -> FastAPI:
    """The HTTP interface over a service."""
    app = FastAPI(title="raypo", version="1", responses=PROBLEM_RESPONSES)
    app.add_middleware(BodyLimit, limit=service.limits.body_bytes)
    answer_problems(app)
    meter = Meter()

    def allowed(request: Request) -> None:
        check_token(request, service.token)

    doors = [Depends(allowed)]

    @app.post("/v1/recommend", dependencies=doors)
    async def recommend(body: RecommendRequest) -> RankResponse:
        """Recommend items of the whole catalogue: retrieved, then ranked."""
        with meter.measured("recommend"):
            return await answers.recommend(service, body)

    @app.post("/v1/rank", dependencies=doors)
    async def rank(body: RankRequest) -> RankResponse:
        """Rank given candidates."""
        with meter.measured("rank"):
            candidates = answers.resolve_items(
                service, body.candidates, "candidates", service.limits.candidates
            )
            history = answers.resolve_items(
                service, body.history, "history", service.limits.history
            )
            return await answers.ranked(service, body.model, history, candidates)

    @app.post("/v1/rerank", dependencies=doors)
    async def rerank(body: RerankRequest) -> RerankResponse:
        """Rank documents after a query, as clients of rerank services ask it."""
        with meter.measured("rerank"):
            return await answers.rerank(service, body)

    @app.get("/v1/models", dependencies=doors)
    async def models() -> ModelList:
        """The models that requests can ask for."""
        found = await answers.list_models(service)
        default = answers.default_model(service, found.names)
        return ModelList(
            data=[ModelEntry(id=name, default=name == default) for name in found.names],
            refused=[RefusedModel(id=name, problem=why) for name, why in found.refused.items()],
        )

    @app.get("/v1/items", dependencies=doors)
    async def items(
        q: str = Query("", max_length=200, description="part of a title"),
        limit: int = Query(10, ge=1, le=100),
    ) -> ItemList:
        """Search titles; without `q`, the most popular items."""
        found = service.catalogue.search(q, limit)
        return ItemList(items=[_entry(service, number) for number in found])

    @app.get("/v1/example", dependencies=doors)
    async def example() -> ExampleUser:
        """A random user of the test rows, with what they really chose next."""
        if not service.examples:
            raise ProblemError(404, "the data set has no test rows to show")
        chosen = random.choice(service.examples)
        return ExampleUser(
            history=[_entry(service, number) for number in chosen.history],
            target=_entry(service, chosen.target),
        )

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers at all."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether models are loaded."""
        if not (await answers.list_models(service)).names:
            raise ProblemError(503, "no model is loaded yet", headers={"Retry-After": "5"})
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(meter.text(), media_type=PROMETHEUS)

    for path, (name, kind) in _PAGE.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)
    return app


def _file(name: str, kind: str) -> Callable[[], Response]:
    content = resources.files("raypo.serving").joinpath("page", name).read_bytes()

    def answer() -> Response:
        return Response(content, media_type=kind, headers=_PAGE_HEADERS)

    return answer


def _entry(service: Service, number: int) -> CatalogueItem:
    return CatalogueItem(**vars(service.catalogue[number]))

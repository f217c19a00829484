"""Requests and answers of the HTTP interface, as its OpenAPI page describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Model = Annotated[
    str | None, Field(description="name of the model, see /v1/models; None is the default one")
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filters(_Request):
    """What the recommender may retrieve."""

    seen: bool = Field(False, description="also items of the history")
    exclude: list[Name] = Field([], max_length=10_000, description="ids or titles to leave out")
    text: str | None = Field(
        None, max_length=200, description="only items whose text (or title) holds this, any case"
    )


class RecommendRequest(_Request):
    """A history, after which items of the whole catalogue are recommended."""

    model: Model = None
    history: list[Name] = Field(min_length=1, description="ids or titles, oldest first")
    k: int = Field(10, ge=1, le=200, description="items to return")
    filters: Filters = Filters()


class RankRequest(_Request):
    """A history and the candidates that are ranked after it."""

    model: Model = None
    history: list[Name] = Field(min_length=1, description="ids or titles, oldest first")
    candidates: list[Name] = Field(min_length=1, description="ids or titles, each once")


class Document(BaseModel):
    """A document of a rerank request."""

    text: Name


class RerankRequest(BaseModel):
    """A rerank request as Jina's, Cohere's and vLLM's clients send it.

    The query is the history: ids or titles, oldest first, one on each line or divided by
    semicolons. Documents are ids or titles of the catalogue. Fields of their own are ignored.
    """

    model: Model = None
    query: str = Field(min_length=1, max_length=100_000)
    documents: list[Name | Document] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = True


class RecommenderOpinion(BaseModel):
    """What the sequential recommender thought of an item."""

    score: float
    rank: int


class LanguageModelOpinion(BaseModel):
    """What the language model thought of an item."""

    logp: float = Field(description="of the title's tokens, in nats")
    rank: int


class RankedItem(BaseModel):
    """An item of an answer."""

    id: str
    title: str
    text: str | None = None
    rank: int = Field(description="from 1")
    score: float = Field(description="by which items rank")
    popularity: int = Field(description="occurrences in the training sequences")
    recommender: RecommenderOpinion | None
    language_model: LanguageModelOpinion | None


class RankResponse(BaseModel):
    """Ranked items, the best first."""

    model: str
    items: list[RankedItem]
    milliseconds: dict[str, float] = Field(
        description="retrieval and language_model, of the batch that the request was in; total, "
        "the time it waited included"
    )


class RerankedDocument(BaseModel):
    """A document's text."""

    text: str


class RerankResult(BaseModel):
    """A document of a rerank answer."""

    index: int = Field(description="position among the request's documents")
    relevance_score: float = Field(description="in [0, 1]; those of a request's documents sum to 1")
    document: RerankedDocument | None = None


class RerankResponse(BaseModel):
    """Documents, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: dict[str, int]


class ModelEntry(BaseModel):
    """A model that requests can ask for."""

    id: str
    object: str = "model"
    default: bool


class RefusedModel(BaseModel):
    """A model that could not be loaded; what was served before goes on."""

    id: str
    problem: str


class ModelList(BaseModel):
    """All models."""

    object: str = "list"
    data: list[ModelEntry]
    refused: list[RefusedModel] = []


class CatalogueItem(BaseModel):
    """An item of the catalogue."""

    id: str
    title: str
    text: str | None = None
    popularity: int


class ItemList(BaseModel):
    """Items that a search found."""

    items: list[CatalogueItem]


class ExampleUser(BaseModel):
    """A user of the test rows."""

    history: list[CatalogueItem] = Field(description="oldest first")
    target: CatalogueItem = Field(description="what they chose next")


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, text in {
        401: "The bearer token is missing or wrong",
        413: "The body is too large",
        422: "A field is wrong",
        503: "Too many requests wait; try again after Retry-After seconds",
        504: "The request took too long",
    }.items()
}

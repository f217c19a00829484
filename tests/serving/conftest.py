"""A ranker of tiny models, and the HTTP interface over it in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from raypo.config.serving import Limits
from raypo.serving.answers import Service
from raypo.serving.app import make_app
from raypo.serving.backend import Models, Refused
from raypo.serving.catalogue import Catalogue, read_examples
from raypo.serving.ranker import Question, Ranker, Ranking
from raypo.serving.runs import Served, find_served


class InThisProcess:
    """The backend without Ray: one question at a time."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker
        self.refused: dict[str, str] = {}

    async def rank(self, question: Question) -> Ranking:
        (answer,) = await asyncio.to_thread(self.ranker.rank_all, [question])
        if isinstance(answer, str):
            raise Refused(answer)
        return answer

    async def models(self) -> Models:
        return Models(self.ranker.names, self.refused)


@pytest.fixture(scope="session")
def served(inputs: tuple[Path, Path, Path]) -> Served:
    data, recommender, adapter = inputs
    found = find_served([adapter.parent])
    assert found.data == data
    return Served(data, found.model, found.adapters, recommender)


@pytest.fixture(scope="session")
def ranker(served: Served) -> Ranker:
    ranker = Ranker(served, token_budget=100)
    assert ranker.set_adapters(served.adapters) == {}
    return ranker


@pytest.fixture(scope="session")
def service(ranker: Ranker, served: Served) -> Service:
    limits = Limits(history=12, candidates=30, body_bytes=5000)
    return Service(
        InThisProcess(ranker),
        Catalogue.of(served.data),
        limits,
        retrieved=8,
        examples=read_examples(served.data),
    )


@pytest.fixture(scope="session")
def client(service: Service) -> TestClient:
    return TestClient(make_app(service), raise_server_exceptions=False)

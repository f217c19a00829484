"""The HTTP interface: answers, errors that name the field, doors."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from raypo.serving.answers import Service
from raypo.serving.app import make_app
from raypo.serving.backend import Overloaded

TITLES = ["Film A0", "Film B1", "Film C2"]


def problem(response, status: int) -> dict:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status and body["type"] == "about:blank"
    return body


def test_recommendations_are_unseen_and_ranked(client: TestClient) -> None:
    response = client.post("/v1/recommend", json={"history": ["0", "film b1", "2"], "k": 5})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == "sft" and len(body["items"]) == 5
    assert [item["rank"] for item in body["items"]] == [1, 2, 3, 4, 5]
    scores = [item["score"] for item in body["items"]]
    assert scores == sorted(scores, reverse=True)
    assert not {item["title"] for item in body["items"]} & set(TITLES)
    for item in body["items"]:
        assert item["score"] == item["language_model"]["logp"]
        assert -1 <= item["recommender"]["score"] <= 1 and item["recommender"]["rank"] <= 8
    assert set(body["milliseconds"]) == {"retrieval", "language_model", "total"}


def test_filters_bound_what_is_retrieved(client: TestClient) -> None:
    ask = {"history": TITLES, "k": 60, "model": "recommender", "filters": {"seen": True}}
    everything = client.post("/v1/recommend", json=ask).json()["items"]
    assert len(everything) == 60 and set(TITLES) <= {item["title"] for item in everything}
    ask["filters"] = {"text": "film a", "exclude": ["Film A26"]}
    found = client.post("/v1/recommend", json=ask).json()["items"]
    assert {item["title"] for item in found} == {"Film A52"}


def test_candidates_are_ranked_as_given(client: TestClient) -> None:
    candidates = ["Film D3", "4", "Film F5"]
    response = client.post("/v1/rank", json={"history": TITLES, "candidates": candidates})
    items = response.json()["items"]
    assert {item["id"] for item in items} == {"3", "4", "5"}


def test_rerank_answers_as_rerank_services_do(client: TestClient) -> None:
    documents = ["Film D3", {"text": "Film E4"}, "Film F5", "Film D3"]
    ask = {"model": "base", "query": "Film A0; Film B1\nFilm C2", "documents": documents}
    body = client.post("/v1/rerank", json=ask | {"top_n": 3, "truncate": 100}).json()
    results = body["results"]
    assert len(results) == 3 and body["model"] == "base"
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] <= 1
    texts = [one if isinstance(one, str) else one["text"] for one in documents]
    assert all(one["document"]["text"] == texts[one["index"]] for one in results)
    ranked = client.post(
        "/v1/rank", json={"model": "base", "history": TITLES, "candidates": list(set(texts))}
    ).json()
    assert ranked["items"][0]["title"] == texts[results[0]["index"]]
    bare = client.post("/v1/rerank", json=ask | {"return_documents": False}).json()
    assert len(bare["results"]) == 4 and bare["results"][0]["document"] is None


def test_models_and_items_are_listed(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    assert [(one["id"], one["default"]) for one in models["data"]] == [
        ("base", False),
        ("sft", True),
        ("recommender", False),
    ]
    found = client.get("/v1/items", params={"q": " FILM  b", "limit": 2}).json()["items"]
    assert len(found) == 2 and all(one["title"].startswith("Film B") for one in found)
    assert found[0]["popularity"] >= found[1]["popularity"]
    assert client.get("/v1/items").json()["items"]
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_an_example_is_a_test_row(client: TestClient, service: Service) -> None:
    example = client.get("/v1/example").json()
    history = tuple(int(item["id"]) for item in example["history"])
    rows = [(one.history, one.target) for one in service.examples]
    assert (history, int(example["target"]["id"])) in rows


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert (
        page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    )
    for name in ("page.css", "page.js"):
        assert f'"{name}"' in page.text
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert "://" not in answer.text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("route", "body", "field", "words"),
    [
        ("recommend", {"history": []}, "history", "at least 1 item"),
        ("recommend", {}, "history", "Field required"),
        ("recommend", {"history": ["0", "Nope"]}, "history[1]", "unknown item 'Nope'"),
        ("recommend", {"history": ["0"] * 13}, "history", "13 items, more than the 12"),
        ("recommend", {"history": ["0"], "k": 0}, "k", "greater than or equal to 1"),
        ("recommend", {"history": ["0"], "model": "gpt"}, "model", "known are base, sft"),
        ("recommend", {"history": ["0"], "typo": 1}, "typo", "not permitted"),
        ("recommend", {"history": ["0"], "filters": {"exclude": ["x"]}}, "filters.exclude[0]", "x"),
        ("rank", {"history": ["0"], "candidates": ["1", "1"]}, "candidates", "twice"),
        ("rank", {"history": ["0"], "candidates": ["1", "??"]}, "candidates[1]", "unknown item"),
        ("rerank", {"query": " ;\n", "documents": ["1"]}, "query", "ids or titles"),
        ("rerank", {"query": "0", "documents": ["1", {"text": "?"}]}, "documents[1]", "unknown"),
    ],
)
def test_errors_name_the_field(client: TestClient, route, body, field, words) -> None:
    found = problem(client.post(f"/v1/{route}", json=body), 422)
    assert found["errors"][0]["field"] == field
    assert words in found["errors"][0]["problem"]
    assert field in found["detail"]


def test_other_errors_are_problem_details_too(client: TestClient) -> None:
    problem(client.get("/v1/absent"), 404)
    problem(client.get("/v1/rank"), 405)
    broken = client.post("/v1/rank", content=b"{", headers={"content-type": "application/json"})
    problem(broken, 422)
    found = problem(client.post("/v1/rank", content=b" " * 5001), 413)
    assert "5000 bytes" in found["detail"]
    nothing = {"history": ["0"], "filters": {"text": "no such film"}}
    assert "leave no item" in problem(client.post("/v1/recommend", json=nothing), 422)["detail"]


def test_the_token_is_asked_for_at_every_door_but_health(service: Service) -> None:
    client = TestClient(make_app(replace(service, token="s3cret")))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
        response = client.get("/v1/models", headers=headers)
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models", headers={"Authorization": "bearer s3cret"}).status_code == 200
    assert client.post("/v1/rank", json={}).status_code == 401
    assert client.get("/health").status_code == 200


def test_a_busy_backend_is_503_and_a_slow_one_504(service: Service) -> None:
    class Failing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def rank(self, question):
            raise self.error

        models = service.backend.models

    ask = {"history": ["0"], "candidates": ["1"]}
    for error, status in ((Overloaded(), 503), (TimeoutError(), 504)):
        client = TestClient(make_app(replace(service, backend=Failing(error))))
        response = client.post("/v1/rank", json=ask)
        problem(response, status)
        assert ("retry-after" in response.headers) == (status == 503)


def test_a_failure_is_500_and_tells_nobody_what_was_asked(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def rank(self, question):
            raise RuntimeError(f"history {question.history}")

        models = service.backend.models

    app = make_app(replace(service, backend=Broken()))
    with caplog.at_level(logging.DEBUG, "raypo"):
        response = TestClient(app, raise_server_exceptions=False).post(
            "/v1/rank", json={"history": ["Film A0"], "candidates": ["1"]}
        )
    assert problem(response, 500)["detail"] == "the request could not be answered"
    assert "POST /v1/rank failed: RuntimeError" in caplog.text
    assert "Film" not in caplog.text and "history (" not in caplog.text


def test_requests_are_counted_for_prometheus(service: Service) -> None:
    client = TestClient(make_app(service))
    client.post("/v1/rank", json={"history": ["0"], "candidates": ["1"]})
    client.post("/v1/rank", json={"history": ["0"], "candidates": ["??"]})
    text = client.get("/metrics").text
    assert 'raypo_requests_total{route="rank",status="200"} 1.0' in text
    assert 'raypo_requests_total{route="rank",status="422"} 1.0' in text
    assert 'raypo_request_seconds_count{route="rank"} 1.0' in text

"""Whatever the schema allows, and much that it does not, is answered without a failure."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from raypo.serving.answers import Service
from raypo.serving.app import make_app

OPERATIONS = [
    ("POST", "/v1/recommend"),
    ("POST", "/v1/rank"),
    ("POST", "/v1/rerank"),
    ("GET", "/v1/models"),
    ("GET", "/v1/items"),
    ("GET", "/v1/example"),
    ("GET", "/health"),
    ("GET", "/ready"),
]


@pytest.fixture(scope="module")
def schema(service: Service) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", make_app(service))


def test_every_operation_is_tried(schema: Any) -> None:
    found = [one.ok() for one in schema.get_all_operations()]
    assert {(one.method.upper(), one.path) for one in found} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_request_makes_the_server_fail(schema: Any, method: str, path: str, mode: Any) -> None:
    operation = schema[path][method]
    if mode.is_negative and method == "GET" and path != "/v1/items":
        return  # there is nothing to get wrong

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=60,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Any) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    run()

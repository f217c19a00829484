"""Errors as problem details (RFC 9457): what is wrong, and with which field."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from raypo.serving.schemas import FieldProblem, Problem

logger = logging.getLogger("raypo")

_TITLES = {
    400: "Bad request",
    401: "Not authorised",
    404: "Not found",
    405: "Method not allowed",
    413: "Body too large",
    422: "Invalid request",
    500: "Internal error",
    503: "Too busy",
    504: "Too slow",
}


class ProblemError(Exception):
    """An error that is answered as it is."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """An error.

        Args:
            status: HTTP status.
            detail: what is wrong.
            errors: fields of the request that are.
            headers: of the answer.
        """
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors, self.headers = list(errors), dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer."""
        problem = Problem(
            title=_TITLES.get(self.status, "Error"),
            status=self.status,
            detail=self.detail,
            errors=self.errors,
        )
        return JSONResponse(
            problem.model_dump(),
            self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


def wrong_field(field: str, problem: str) -> ProblemError:
    """The error of one field of a request."""
    return ProblemError(422, f"{field}: {problem}", [FieldProblem(field=field, problem=problem)])


def answer_problems(app: FastAPI) -> None:
    """Have an app answer all its errors as problem details."""

    @app.exception_handler(ProblemError)
    async def _known(request: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        fields = [
            FieldProblem(field=_name(one["loc"]), problem=str(one["msg"])) for one in error.errors()
        ]
        first = fields[0]
        return ProblemError(422, f"{first.field}: {first.problem}", fields).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        return ProblemError(error.status_code, str(error.detail), (), error.headers).response()

    @app.exception_handler(Exception)
    async def _unknown(request: Request, error: Exception) -> JSONResponse:
        # Neither the message nor the request is logged: they may hold titles and histories.
        logger.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
        return ProblemError(500, "the request could not be answered").response()


def _name(location: Sequence[object]) -> str:
    """A field's name as in `history[2]`."""
    parts = [part for part in location if part not in ("body", "query", "path")]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return name.removeprefix(".") or "body"

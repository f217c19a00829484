"""Who may ask, and how much: bearer tokens, the size of bodies, time limits."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raypo.config.serving import LOOPBACK, ServeConfig
from raypo.errors import InputError
from raypo.serving.problems import ProblemError

TOKEN_VARIABLE = "RAYPO_TOKEN"


def read_token(config: ServeConfig) -> str | None:
    """The bearer token that requests must bring; None where none is asked for.

    Raises:
        InputError: its file cannot be read or is empty, or there is none although others than this
            machine can reach the server.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    if config.token_file is not None:
        token = _of_file(config.token_file)
    if token is None and config.host not in LOOPBACK:
        raise InputError(
            f"host={config.host}: other machines can reach it; set ${TOKEN_VARIABLE} or token_file "
            "to the token that requests must bring, or listen on 127.0.0.1"
        )
    return token


def _of_file(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token_file: {file} cannot be read ({error})") from None
    if not token:
        raise InputError(f"token_file: {file} is empty")
    return token


def check_token(request: Request, token: str | None) -> None:
    """Require the bearer token.

    Raises:
        ProblemError: it is missing or wrong (401).
    """
    if token is None:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    if kind.casefold() != "bearer" or not same:
        raise ProblemError(
            401,
            "expected the header Authorization: Bearer <token>, with the server's token",
            headers={"WWW-Authenticate": "Bearer"},
        )


class BodyLimit:
    """Middleware that answers 413 to bodies beyond a size, whatever their headers say."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        """Limit bodies.

        Args:
            app: what is called with bodies within the limit.
            limit: bytes.
        """
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then call the app with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                error = ProblemError(413, f"a body has at most {self._limit} bytes")
                await error.response()(scope, receive, send)
                return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

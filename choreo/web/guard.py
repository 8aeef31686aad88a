"""Who may ask: those who know the token; and how long an answer may take."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from choreo.web.problems import UNAVAILABLE, on_error, problem

Answer = Callable[[Request], Awaitable[Response]]
_UNAUTHORIZED = 401
_SAFE = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
}


class Guard:
    """ASGI middleware: without `Authorization: Bearer TOKEN` nothing is answered, and every answer is safe to open.

    Args:
        token: compared in the same time whatever is wrong with the one that came.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say that the token is missing."""
        if scope["type"] != "http":
            return

        async def safely(message: object) -> None:
            if isinstance(message, dict) and message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", ())}
                more = [(name, value) for name, value in _SAFE.items() if name not in there]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)  # type: ignore[arg-type] # as it came

        if self._knows(scope):
            await self._app(scope, receive, safely)
        else:
            what = "say Authorization: Bearer TOKEN; the token is CHOREO_TRACKER_TOKEN, or was printed at the start"
            await problem(_UNAUTHORIZED, what, {"www-authenticate": "Bearer"})(scope, receive, safely)

    def _knows(self, scope: Scope) -> bool:
        said = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = (said[0] if len(said) == 1 else b"").partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and kind.lower() == b"bearer"


def within(seconds: float, answer: Answer) -> Answer:
    """The answer, or after so many seconds that it takes too long. What was begun is told to end, and not waited for."""

    async def bounded(request: Request) -> Response:
        work = asyncio.ensure_future(answer(request))
        done, _ = await asyncio.wait({work}, timeout=seconds)
        if done:
            error = work.exception()
            return work.result() if error is None else on_error(request, error)
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody reads it any more
        work.cancel()
        return problem(
            UNAVAILABLE, f"this takes longer than {seconds:g} s and was cut: ask for less, or narrow the filter"
        )

    return bounded

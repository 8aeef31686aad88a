"""The health port: `/live` for whoever restarts the process, `/ready` for whoever counts on it, `/metrics` for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from choreo.observe.serving import served

Check: TypeAlias = Callable[[], Awaitable[Sequence[str]]]
"""Says why not, in sentences; nothing if all is well."""


@asynccontextmanager
async def health_port(host: str, port: int, *, live: Check, ready: Check) -> AsyncIterator[int]:
    """Answer `GET /live` and `GET /ready` while the block runs: 200 or 503, and `{"ok": bool, "why": [sentence, ...]}`.

    `GET /metrics` gives the metrics of the process.

    Args:
        port: 0 takes a free one; the block is given the one taken.

    Raises:
        ConfigurationError: somebody else listens there, or it may not be listened to.
    """
    app = Starlette(routes=[Route("/live", _answering(live)), Route("/ready", _answering(ready)), metrics_route()])
    remedy = "set CHOREO_HEALTH_PORT to a free port"
    async with served(app, host, port, what="health port", remedy=remedy) as taken:
        yield taken


def metrics_route() -> Route:
    """`GET /metrics`, for any Starlette application: what Prometheus asks for."""

    async def answer(_request: Any) -> Response:
        from choreo.observe.metrics import exposition  # Prometheus's library, once somebody asks

        body, content_type = await exposition()
        return Response(body, media_type=content_type)

    return Route("/metrics", answer)


def _answering(check: Check) -> Callable[[Any], Awaitable[JSONResponse]]:
    async def answer(_request: Any) -> JSONResponse:
        why = list(await check())
        return JSONResponse({"ok": not why, "why": why}, status_code=503 if why else 200)

    return answer

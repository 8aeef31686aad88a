"""The Starlette application that answers questions about sagas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from choreo.saga.questions import Questions
from choreo.web import openapi
from choreo.web.guard import Guard, within
from choreo.web.operations import OPERATIONS, Document, Operation, as_json
from choreo.web.parameters import read
from choreo.web.problems import on_http_error
from choreo.web.watching import WATCH, watching

TIME_LIMIT = 10.0


def make_app(questions: Questions, token: str, *, time_limit: float = TIME_LIMIT) -> Starlette:
    """The application.

    Args:
        token: whoever asks has to know it.
        time_limit: seconds after which a question is cut.
    """
    routes = [
        Route(f"{openapi.BASE}{one.path}", within(time_limit, _answering(one, questions)), methods=["GET"])
        for one in OPERATIONS
    ]
    routes.append(Route(f"{openapi.BASE}{WATCH.path}", watching(questions), methods=["GET"]))
    routes.append(Route("/api/openapi.json", within(time_limit, _document()), methods=["GET"]))
    guard = Middleware(Guard, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: on_http_error})
    app.router.redirect_slashes = False  # it would send whoever asks to the host that the request names
    return app


def _answering(one: Operation, questions: Questions) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        found = await one.answer(questions, read(request, one.parameters))
        if isinstance(found, Document):
            name = {"content-disposition": "attachment"} if found.media_type == "text/html" else {}
            return Response(found.text, media_type=found.media_type, headers=name)
        written = await asyncio.to_thread(_written, found)
        return Response(written, media_type="application/json")

    return answer


def _written(found: object) -> str:
    return json.dumps(as_json(found), ensure_ascii=True, allow_nan=False)


def _document() -> Callable[[Request], Awaitable[Response]]:
    written = json.dumps(openapi.document(), indent=1)

    async def answer(request: Request) -> Response:
        read(request, ())
        return Response(written, media_type="application/json")

    return answer

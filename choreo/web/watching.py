"""Changes of sagas as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from choreo.errors import ChoreoError
from choreo.saga.export.plain import plain
from choreo.saga.filter_text import parse
from choreo.saga.questions import Change, Questions
from choreo.saga.questions.watching import check_place
from choreo.web.answers import Listed
from choreo.web.parameters import FILTER, Parameter, read
from choreo.web.problems import UNAVAILABLE, on_error, problem

_logger = logging.getLogger(__name__)
MOST_WATCHERS = 200
_HEARTBEAT = 15.0
_AFTER = Parameter(
    name="after", meaning="The id of the last change that is known: go on behind it; from now on unless given.",
    schema={"type": "string", "maxLength": 64},
)  # fmt: skip


class Stream(NamedTuple):
    """A question whose answer goes on.

    Attributes:
        result: the type of each event's data.
    """

    path: str
    name: str
    meaning: str
    parameters: Sequence[Parameter]
    result: Any


WATCH = Stream("/watch", "watch", "Every change of sagas that fit a filter, as it comes.", [FILTER, _AFTER], Listed)


def watching(questions: Questions) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint; so many at a time and no more."""
    watchers = 0

    async def answer(request: Request) -> Response:
        nonlocal watchers
        try:
            values = read(request, WATCH.parameters)
            asked, after = values["filter"] or "", request.headers.get("last-event-id") or values["after"] or ""
            parse(asked)
            check_place(after)
        except Exception as error:  # noqa: BLE001 - all become answers
            return on_error(request, error)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if watchers >= MOST_WATCHERS:
            return problem(UNAVAILABLE, f"{MOST_WATCHERS} others watch already: come again later")

        async def counted() -> AsyncIterator[str]:
            nonlocal watchers
            watchers += 1
            try:
                async for part in events_of(questions.watch(asked, after=after)):
                    yield part
            finally:
                watchers -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")

    return answer


async def events_of(changes: AsyncIterator[Change]) -> AsyncIterator[str]:
    """The changes as events, and a comment now and then, so that whoever is gone is noticed."""
    yield "retry: 1000\n\n"
    waiting: asyncio.Future[Change] = asyncio.ensure_future(anext(changes))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_HEARTBEAT)
            if not done:
                yield ": nothing new\n\n"
                continue
            try:
                change = waiting.result()
            except ChoreoError as error:
                _logger.warning("a stream of changes ends: %s", error)
                return  # whoever listens comes back by itself, and says where it was
            waiting = asyncio.ensure_future(anext(changes))
            data = json.dumps(plain(Listed.of(change.summary)), ensure_ascii=True)
            yield f"id: {change.id}\nevent: saga\ndata: {data}\n\n"
    finally:
        waiting.cancel()

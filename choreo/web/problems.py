"""What goes wrong, as `application/problem+json` (RFC 9457). Nothing that was not meant for others gets out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from choreo.errors import (
    ChoreoError,
    ConfigurationError,
    FilterError,
    LogUnavailableError,
    RegistryUnavailableError,
    StoreUnavailableError,
    UnknownSagaError,
)

_logger = logging.getLogger(__name__)

BAD, UNKNOWN, NOT_ALLOWED, BROKEN, UNAVAILABLE = 400, 404, 405, 500, 503
TITLES: Mapping[int, str] = {
    400: "That cannot be asked",
    401: "The token is missing or wrong",
    404: "There is no such thing",
    405: "Nothing can be changed here",
    500: "It could not be answered",
    503: "It cannot be answered now",
}
RETRY_AFTER = "1"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """An answer that says what is wrong."""
    body = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail, **more}
    retry = {"retry-after": RETRY_AFTER} if status == UNAVAILABLE else {}
    written = json.dumps(body, ensure_ascii=True)
    return Response(written, status, {**retry, **(headers or {})}, media_type="application/problem+json")


def on_error(request: Request, error: BaseException) -> Response:
    """The answer to a question that raised this."""
    match error:
        case FilterError():
            return problem(BAD, str(error), at=error.at)
        case ConfigurationError():
            return problem(BAD, str(error))
        case UnknownSagaError():
            return problem(UNKNOWN, str(error))
        case LogUnavailableError() | StoreUnavailableError() | RegistryUnavailableError():
            return problem(UNAVAILABLE, str(error))
    if isinstance(error, ChoreoError):
        return problem(BROKEN, str(error))
    _logger.error("a question could not be answered: %r", request.url.path, exc_info=error)
    return problem(BROKEN, "an error in choreo; the log of the process has it")


async def on_http_error(request: Request, error: Exception) -> Response:
    """The answer to what no route takes."""
    status = getattr(error, "status_code", UNKNOWN)
    headers = getattr(error, "headers", None)
    if status == NOT_ALLOWED:
        return problem(NOT_ALLOWED, f"{request.method} is not understood: everything is read by GET", headers)
    return problem(UNKNOWN, f"there is nothing at {request.url.path}; see /api/openapi.json")

"""Structured logs on standard error: JSON for machines, coloured lines for people."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from choreo.errors import ConfigurationError


class _Lines:
    """Writes finished lines to the stream of a handler, in turn with it.

    What choreo and its handlers log comes this way. Through the standard library's records a line costs more than twice as much,
    which a service that logs one for each of thousands of events a second feels.

    Attributes:
        name: the logger's.
    """

    def __init__(self, handler: logging.StreamHandler[TextIO], name: str = "root") -> None:
        self._handler = handler
        self.name = name

    def msg(self, line: str) -> None:
        """Write one; a stream that takes none any more stops nobody."""
        handler = self._handler
        handler.acquire()
        try:
            with suppress(OSError, ValueError):
                handler.stream.write(f"{line}\n")
                handler.stream.flush()
        finally:
            handler.release()

    debug = info = warning = error = critical = msg


def configure_logging(
    json: bool | None = None,  # noqa: FBT001 - read as json=True
    level: str = "info",
    said: Mapping[str, object] | None = None,
) -> None:
    """Set up structlog, and send what other libraries log through the same format.

    Args:
        json: one JSON object a line; None asks CHOREO_LOG_FORMAT (`json` or `console`), and without it gives JSON
            when standard error is no terminal.
        level: the least level that is written: debug, info, warning, error or critical.
        said: fields of every line.

    Raises:
        ConfigurationError: an unknown level or format.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        remedy = "use debug, info, warning, error or critical"
        raise ConfigurationError(f"log level {level!r} is unknown", remedy=remedy)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**event, **(said or {})},
    ]
    if _wants_json() if json is None else json:
        renderers: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:  # plain tracebacks: those with local variables show customers' data
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    processors = [ProcessorFormatter.remove_processors_meta, *renderers]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *name: _Lines(handler, *name),
    )


def _wants_json() -> bool:
    wanted = os.environ.get("CHOREO_LOG_FORMAT", "")
    if wanted not in {"", "json", "console"}:
        raise ConfigurationError(f"CHOREO_LOG_FORMAT is {wanted!r}", remedy="use json or console")
    return wanted == "json" if wanted else not sys.stderr.isatty()

"""A web application on a port, inside somebody else's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

from choreo.errors import ConfigurationError

_CONNECTIONS, _LAST_PORT = 500, 65_535


class _Server(uvicorn.Server):
    """A server whose process's signals are not its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(
    app: Starlette, host: str, port: int, *, what: str = "", remedy: str = "choose a free port"
) -> AsyncIterator[int]:
    """Answer while the block runs.

    Args:
        port: 0 takes a free one; the block is given the one taken.
        what: the port's name, for whoever cannot have it; `remedy` says what to do then.

    Raises:
        ConfigurationError: somebody else listens there, or it may not be listened to.
    """
    try:
        listening = _listening(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"{what} {host}:{port} is not to be had".lstrip(), why=str(error), remedy=remedy
        ) from error
    config = uvicorn.Config(
        app,
        http="h11",  # the same limits of what a request may be, whatever else is installed
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LAST_PORT:
        raise OSError(f"ports end at {_LAST_PORT}")
    return socket.create_server((host, port))

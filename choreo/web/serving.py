"""The application on a port, inside somebody else's event loop."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from choreo.errors import ConfigurationError

LEAST_TOKEN = 16
_CONNECTIONS = 500


class _Server(uvicorn.Server):
    """A server whose process's signals are not its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def token_from(given: str) -> tuple[str, bool]:
    """The token that was given, or a new one; and whether it is new.

    Raises:
        ConfigurationError: it can be guessed, or no header can hold it.
    """
    if not given:
        return secrets.token_urlsafe(24), True
    if len(given) < LEAST_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        remedy = f"take {LEAST_TOKEN} or more letters and digits, such as: {secrets.token_urlsafe(24)}"
        raise ConfigurationError("CHOREO_TRACKER_TOKEN cannot be a token", remedy=remedy)
    return given, False


@asynccontextmanager
async def served(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Answer while the block runs.

    Args:
        port: 0 takes a free one; the block is given the one taken.

    Raises:
        ConfigurationError: somebody else listens there, or it may not be listened to.
    """
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} is not to be had", why=str(error), remedy="choose a free port"
        ) from error
    quiet: dict[str, Any] = {
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "lifespan": "off",
        "ws": "none",
    }
    config = uvicorn.Config(
        app, timeout_graceful_shutdown=1, limit_concurrency=_CONNECTIONS, server_header=False, **quiet
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving

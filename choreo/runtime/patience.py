"""A process's work: it waits out trouble that passes, answers how it is, and ends when it is told to."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Any

from choreo.errors import AccessError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError
from choreo.runtime.settings import Settings

_PASSING = (AccessError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError)
_FIRST_DELAY, _MAX_DELAY = 0.5, 15.0


class Patient(ABC):
    """Work that is begun anew where waiting can help: no answer, or a right that is lacking.

    Args:
        stop: set when it is to end.
        log: told what it waits for.

    Attributes:
        is_begun: whether it is at work; whoever does it says so.
        waits_for: what it waits for while it is not.
    """

    def __init__(self, stop: asyncio.Event, log: Any, waits_for: str) -> None:
        self.stop = stop
        self.is_begun = False
        self.waits_for = waits_for
        self._log = log

    @abstractmethod
    async def work(self) -> None:
        """Begin, say so, and go on until it fails or is told to stop."""

    @abstractmethod
    async def live(self) -> list[str]:
        """Why it cannot go on; that the loop answers at all says the rest."""

    @abstractmethod
    async def ready(self) -> list[str]:
        """Why nobody should count on it just now."""

    async def run(self) -> None:
        """Work until it fails for good or is told to stop; where waiting can help it waits, says for what, and tries again."""
        delay = _FIRST_DELAY
        while True:
            try:
                return await self.work()
            except _PASSING as error:
                if self.stop.is_set():
                    raise
                begun, self.is_begun, self.waits_for = self.is_begun, False, str(error)
                what = "cannot go on, starting again" if begun else "cannot start yet, trying again"
                self._log.error(what, reason=str(error), delay=delay)
            await asyncio.sleep(delay)
            delay = min(_MAX_DELAY, delay * 2)


async def until_stopped(work: Patient, settings: Settings) -> None:
    """Run it until it is told to stop, with a health port if the settings name one.

    Raises:
        ChoreoError: it cannot start, or cannot go on.
    """
    async with AsyncExitStack() as stack:
        if settings.health_port is not None:
            from choreo.observe.health import health_port  # a web server, only where it is asked for

            port = health_port(settings.health_host, settings.health_port, live=work.live, ready=work.ready)
            await stack.enter_async_context(port)
        doing, stopping = asyncio.ensure_future(work.run()), asyncio.ensure_future(work.stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not work.is_begun and not doing.done():
                doing.cancel()  # it waits for something that may never come
                await asyncio.wait({doing})
            if not doing.cancelled():
                await doing
        finally:
            stopping.cancel()
            doing.cancel()

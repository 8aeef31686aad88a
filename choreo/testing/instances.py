"""The service instances of a world: started, crashed and started again from their stores."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from choreo.errors import ConfigurationError
from choreo.log.memory import MemoryLog
from choreo.runtime.clock import Clock
from choreo.runtime.instance import Instance
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.store import Store
from choreo.store.port import Row
from choreo.store.sqlite.database import SqliteDatabase
from choreo.store.sqlite.memory import MemoryDatabase
from choreo.testing.handlers import Calls
from choreo.testing.link import Link, Point
from choreo.testing.network import Network
from choreo.testing.store import LinkedStore
from choreo.wire import Codec


class Instances:
    """One instance of each service.

    Attributes:
        calls: the calls of their handlers.
        crashes: how often they have died.
        outside: the log as somebody sees it who is no service.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        log: MemoryLog,
        network: Network,
        codec: Codec,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._services = {service.name: service for service in services}
        self._log, self._network, self._codec, self._settings, self._clock = log, network, codec, settings, clock
        self._loop = asyncio.get_running_loop()
        self._databases: dict[str, MemoryDatabase] = {}
        self._running: dict[str, tuple[Instance, Link]] = {}
        self._dying: dict[tuple[str, Point], int] = {}
        self._crashing = asyncio.Lock()
        self._restarts: list[asyncio.Task[None]] = []
        self.calls = Calls(services)
        self.crashes = Counter[str]()
        self.outside = Link(log, network, "", lambda _: False)

    async def start(self) -> None:
        """Start all."""
        for name in self._services:
            await self._begin(name)

    async def stop(self) -> None:
        """End all, and forget what is in the stores."""
        self.calls.close()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        for name in list(self._running):
            await self._end(name)

    def forget(self) -> None:
        """Forget what is in the stores."""
        for database in self._databases.values():
            database.connection.close()

    async def _begin(self, name: str) -> None:
        link = Link(self._log, self._network, name, lambda point: self._dies(name, point))
        instance = Instance(
            self.calls.watched(self._services[name], link), log=link, codec=self._codec, settings=self._settings,
            clock=self._clock, open_store=self.opens(link),
        )  # fmt: skip
        await instance.start()
        self._running[name] = instance, link

    async def _end(self, name: str) -> None:
        instance, link = self._running.pop(name)
        link.dead = True
        await instance.kill()

    # --- stores ---------------------------------------------------------------------------------------------------

    def opens(self, link: Link) -> Callable[[str], Store]:
        """What opens stores at one end of a link: in memory, whatever the address."""

        def open_store(address: str) -> Store:
            if address not in self._databases:
                self._databases[address] = MemoryDatabase()
            store: Store = LinkedStore(self._databases[address], link.service or address, link)
            return store

        return open_store

    async def fetch(self, service: Service, sql: str, parameters: Sequence[object]) -> list[Row]:
        """The rows that a query finds in a service's store."""
        if service.transactional:
            raise ConfigurationError(f"service {service.name!r} is transactional and has no store")
        address = self._settings.store_of(service.name, service.store)
        return await SqliteDatabase(self._databases[address].connection, Path(service.name)).fetch_all(sql, parameters)

    # --- what they do ---------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """How many records are being handled."""
        return sum(instance.under_way for instance, _ in self._running.values())

    def busy(self) -> list[str]:
        """Whoever waits for something outside the event loop, in words."""
        if not all(restart.done() for restart in self._restarts):
            return ["a service starts again"]
        given_up = sum(instance.given_up for instance, _ in self._running.values())
        if self.under_way + given_up <= self.calls.hung:
            return []
        return self.calls.under_way or ["a thread is about to begin"]

    def check(self) -> None:
        """Raise what keeps one of them from going on, if something does."""
        for restart in self._restarts:
            if restart.done():
                restart.result()
        for name, (instance, _) in self._running.items():
            if instance.failed is not None:
                instance.failed.add_note(f"service {name} cannot go on")
                raise instance.failed

    # --- crashes --------------------------------------------------------------------------------------------------

    async def crash(self, name: str) -> None:
        """Let an instance die at once, and start it again."""
        async with self._crashing:
            self.crashes[name] += 1
            await self._end(name)
            await self._begin(name)

    def crash_at(self, name: str, point: Point, times: int) -> None:
        """Let an instance die so many times when it comes to this point."""
        self._dying[name, point] = times

    def _dies(self, name: str, point: Point) -> bool:
        """Whether it dies here. Called from its threads too."""
        left = self._dying.get((name, point), 0)
        if left:
            self._dying[name, point] = left - 1
            self._running[name][1].dead = True
            self._loop.call_soon_threadsafe(lambda: self._restarts.append(self._loop.create_task(self.crash(name))))
        return left > 0

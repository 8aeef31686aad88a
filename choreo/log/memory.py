"""The log in memory: for tests and the simulator. It keeps every promise of the port but durability."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Self, TypeVar
from weakref import finalize

from choreo.log.embedded.log import EmbeddedLog
from choreo.log.tables import SCHEMA, Tables

P = ParamSpec("P")
T = TypeVar("T")


class MemoryLog(EmbeddedLog):
    """One log for everybody who holds this object; its records live as long as it does. No thread, no other clock.

    Args:
        now: the clock for timestamps and retention, in milliseconds since the epoch.
    """

    url = "memory://"
    check_interval = None

    def __init__(self, *, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        super().__init__(self, self)
        connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256, check_same_thread=False)
        finalize(self, connection.close)
        connection.executescript(SCHEMA)
        self._tables = Tables(connection, now, beat=lambda: 0)  # members do not die by themselves
        self._generations: dict[str, int] = {}
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if not self._users:
            await self.close_consumers()

    async def run(self, operation: Callable[Concatenate[Tables, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)  # somebody who only appends must not keep the event loop for himself
        with self._tables.connection as connection:  # commits or rolls back
            connection.execute("BEGIN")
            while self._tables.trim():
                pass
            result = operation(self._tables, *args, **kwargs)
        before, self._generations = self._generations, self._tables.generations()
        if self._generations != before:
            self.wake(regrouped=True)
        return result

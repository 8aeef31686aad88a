"""The log in a SQLite file: durable, and shared by several processes of one machine without any server."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from pathlib import Path
from typing import Self

from choreo.errors import ConfigurationError
from choreo.log.embedded import EmbeddedLog
from choreo.log.port import Capabilities
from choreo.log.sqlite.worker import Worker
from choreo.log.tables import Tables

_URL = re.compile(r"sqlite:///(?!:memory:)([^?]+)(?:\?synchronous=(full|normal))?")
_WATCH_INTERVAL = 0.01
_HEARTBEAT_INTERVAL = 1.0
_TRIM_INTERVAL = 0.02  # between two bites, so that appends get their turn
_LONGEST_STALL = 300.0  # a member whose event loop has not run for so long (seconds) counts as dead, as in Kafka


class SqliteLog(EmbeddedLog):
    """The log in one file. One thread writes and shows that members live, one reads and watches for what others write.

    Args:
        path: the file; made when it is not there, with its folder.
        synchronous: "full" (a record is on disk when it is acknowledged) or "normal" (the last ones may be lost when
            the machine, not just the process, goes down).
        url: what to show as its address.
    """

    capabilities = Capabilities(
        durable=True, several_processes=True, transactions=True, topic_creation=True, retention=True
    )
    check_interval = _HEARTBEAT_INTERVAL

    def __init__(self, path: Path, *, synchronous: str = "full", url: str = "") -> None:
        self.url = url or f"sqlite:///{path}"
        path = path.absolute()  # whatever becomes of the working directory
        self._writer = Worker(path, synchronous, writes=True, tick=self._keep_up)
        self._reader = Worker(path, synchronous, writes=False, tick=self._watch)
        self._seen: tuple[object, dict[str, int]] = (None, {})  # the file's version, and the groups' generations in it
        super().__init__(self._reader, self._writer)

    @classmethod
    def at(cls, url: str) -> Self:
        """The log at `sqlite:///relative/path` or `sqlite:////absolute/path`, optionally with `?synchronous=normal`.

        Raises:
            ConfigurationError: the address names no file, or an option there is not.
        """
        match = _URL.fullmatch(url)
        if not match:
            raise ConfigurationError(
                f"CHOREO_LOG is {url!r}, which names no file that can be used",
                remedy="write sqlite:///path/log.db, optionally with ?synchronous=normal",
            )
        return cls(Path(match[1]), synchronous=match[2] or "full", url=url)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._writer.start()
            await self._writer.run(lambda _: None)  # makes the file, or says why it cannot
            self._reader.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close_consumers()
        await self._reader.close()
        await self._writer.close()

    def _keep_up(self, tables: Tables) -> float:
        oldest = time.monotonic() - _LONGEST_STALL
        consumers = self.consumers.copy()
        tables.heartbeat(consumer.membership for consumer in consumers if consumer.looked > oldest)
        return _TRIM_INTERVAL if tables.trim() else _HEARTBEAT_INTERVAL

    def _watch(self, tables: Tables) -> float:
        """See whether anybody has written; SQLite answers that from shared memory, for next to nothing."""
        version = tables.connection.execute("PRAGMA data_version").fetchone()
        before = self._seen
        if version != before[0]:
            self._seen = (version, tables.generations())
            self._loop.call_soon_threadsafe(partial(self.wake, regrouped=self._seen[1] != before[1]))
        return _WATCH_INTERVAL

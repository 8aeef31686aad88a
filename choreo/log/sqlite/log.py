"""The log in a SQLite file: durable, and shared by several processes of one machine without any server."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import parse_qsl

from choreo.errors import ConfigurationError
from choreo.log.embedded import Commit, EmbeddedLog, Fence, Fetched
from choreo.log.groups import Step
from choreo.log.limits import limits_of
from choreo.log.port import Capabilities, NewRecord, Start, Topic, TopicPartition
from choreo.log.sqlite import membership, records
from choreo.log.sqlite.watcher import Watcher
from choreo.log.sqlite.worker import Synchronous, Worker

T = TypeVar("T")

_SCHEME = "sqlite:///"
_HEARTBEAT_INTERVAL = 1.0
_TRIM_INTERVAL = 0.02  # between two bites, so that appends get their turn
_LONGEST_STALL = 300.0  # a member whose event loop has not run for so long (seconds) counts as dead, as in Kafka


class SqliteLog(EmbeddedLog):
    """The log in one file. Three worker threads: one appends and commits, one reads, one keeps groups and trims.

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

    def __init__(self, path: Path, *, synchronous: Synchronous = "full", url: str = "") -> None:
        super().__init__()
        self.url = url or f"{_SCHEME}{path}"
        path = path.absolute()  # whatever becomes of the working directory
        self._topics = records.Topics()
        self._writer = Worker(path, synchronous)
        self._keeper = Worker(path, "normal")  # who owns what need not outlive the machine
        self._reader = Worker(path, "normal", begin="BEGIN", at_once=1)
        self._watcher = Watcher(path, self.wake, self._tick, lambda: bool(self._consumers))
        self._looked: dict[int, float] = {}  # when each member last looked at its group
        self._trimming = False

    @classmethod
    def at(cls, url: str) -> Self:
        """The log at `sqlite:///relative/path` or `sqlite:////absolute/path`, optionally with `?synchronous=normal`.

        Raises:
            ConfigurationError: the address names no file, or an option there is not.
        """
        name, _, query = url.removeprefix(_SCHEME).partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "full")
        if not url.startswith(_SCHEME) or not name or name == ":memory:" or options:
            raise ConfigurationError(
                f"CHOREO_LOG is {url!r}, which names no file", remedy="write sqlite:///path/log.db[?synchronous=normal]"
            )
        if synchronous not in {"full", "normal"}:
            raise ConfigurationError(f"CHOREO_LOG has synchronous={synchronous}", remedy="write full or normal")
        return cls(Path(name), synchronous="full" if synchronous == "full" else "normal", url=url)

    async def __aenter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        try:
            await self._writer.run(lambda _: None)
        except BaseException:
            await self.__aexit__()
            raise
        self._watcher.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close_consumers()
        await self._watcher.close()
        for worker in self._workers:
            await worker.close()

    @property
    def _workers(self) -> tuple[Worker, ...]:
        return (self._writer, self._keeper, self._reader)

    async def topics(self) -> dict[str, Topic]:
        """See `Log.topics`."""
        return await self._reader.run(records.read_topics)

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """See `Log.create_topics`."""
        for topic in topics:
            limits_of(topic)
        created = await self._writer.run(lambda connection: records.create_topics(connection, topics))
        self.wake(regrouped=bool(created))
        return created

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.beginning_offsets`."""
        return {partition: first for partition, (_, first, _) in (await self._bounds(partitions)).items()}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.end_offsets`."""
        return {partition: end for partition, (_, _, end) in (await self._bounds(partitions)).items()}

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        return await self._reader.run(lambda connection: records.committed(connection, group, partitions))

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.offsets_at`."""
        return await self._each(
            partitions, lambda connection, partition: records.offset_at(connection, self._topics, partition, timestamp)
        )

    async def _bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int, int]]:
        return await self._each(partitions, self._topics.bounds)

    async def _each(
        self, partitions: Iterable[TopicPartition], read: Callable[[sqlite3.Connection, TopicPartition], T]
    ) -> dict[TopicPartition, T]:
        return await self._reader.run(lambda connection: {p: read(connection, p) for p in partitions})

    async def settle(self, group: str | None, member: int | None, topics: Sequence[str]) -> tuple[int, Step]:
        """See `EmbeddedLog.settle`."""
        if group is None:
            everything = await self._reader.run(lambda connection: self._topics.partitions(connection, topics))
            return 0, Step(dict.fromkeys(everything, 0), [])
        id_, step = await self._keeper.run(
            lambda connection: membership.settle(connection, self._topics, group, member, topics)
        )
        if member is not None and member != id_:
            self._looked.pop(member, None)
        self._looked[id_] = time.monotonic()
        return id_, step

    async def release(self, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
        """See `EmbeddedLog.release`."""
        await self._keeper.run(lambda connection: membership.release(connection, group, member, partitions))

    async def leave(self, group: str, member: int) -> None:
        """See `EmbeddedLog.leave`."""
        self._looked.pop(member, None)
        await self._keeper.run(lambda connection: membership.leave(connection, group, member))

    async def fetch(self, positions: Mapping[TopicPartition, int], limit: int, start: Start) -> Fetched:
        """See `EmbeddedLog.fetch`."""
        return await self._reader.run(
            lambda connection: records.fetch(connection, self._topics, positions, limit, start)
        )

    async def register(self, transactional_id: str) -> int:
        """See `EmbeddedLog.register`."""
        return await self._writer.run(lambda connection: records.register(connection, transactional_id))

    async def write(self, new: Sequence[NewRecord], commit: Commit | None, fence: Fence | None) -> None:
        """See `EmbeddedLog.write`."""
        write = records.Write(self._topics, new, commit, fence)
        await self._writer.run(write.run)
        if new:
            self.wake()

    def _tick(self) -> float:
        oldest = time.monotonic() - _LONGEST_STALL
        members = [member for member, looked in self._looked.copy().items() if looked > oldest]
        self._keeper.post(lambda connection: self._upkeep(connection, members))
        return _TRIM_INTERVAL if self._trimming else _HEARTBEAT_INTERVAL

    def _upkeep(self, connection: sqlite3.Connection, members: Sequence[int]) -> None:
        membership.heartbeat(connection, members)
        self._trimming = records.trim(connection, self._topics, time.time_ns() // 1_000_000)

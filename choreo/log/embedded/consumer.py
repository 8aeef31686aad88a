"""The embedded logs' consumer: a member of its group in the log's tables."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from choreo.errors import LogError, LogUnavailableError
from choreo.log.groups import Step
from choreo.log.partitioning import not_owner
from choreo.log.port import Listener, Position, Record, Start, TopicPartition
from choreo.log.tables import Commit, Tables

if TYPE_CHECKING:
    from choreo.log.embedded.log import EmbeddedLog

_log = logging.getLogger(__name__)
T = TypeVar("T")

_PAUSE_AFTER_TROUBLE = 1.0


@dataclass
class _Owned:
    """A partition as its owner sees it; `ready` once its listener has taken it."""

    generation: int
    position: int
    ready: bool = False
    revoking: bool = False
    paused: bool = False

    @property
    def readable(self) -> bool:
        return self.ready and not self.revoking and not self.paused


class EmbeddedConsumer:
    """Implements `Consumer`; one task keeps its membership and calls its listener.

    Attributes:
        topics: those that it reads.
        looked: when it last looked at its group (monotonic seconds).
    """

    def __init__(
        self, log: EmbeddedLog, topics: Sequence[str], group: str | None, listener: Listener | None, start: Start
    ) -> None:
        self.log = log
        self.topics = frozenset(topics)
        self._topics, self._group, self._listener, self._start = tuple(topics), group, listener, start
        self._member: int | None = None
        self.looked = time.monotonic()
        self._owned: dict[TopicPartition, _Owned] = {}
        self._failure: Exception | None = None
        self._closing = False
        self._arrived = asyncio.Event()
        self._regrouped = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._membership = self._loop.create_task(self._keep_membership())

    @property
    def membership(self) -> tuple[str, int]:
        """Its group and its id there; the id 0 belongs to nobody."""
        return self._group or "", self._member or 0

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(partition for partition, owned in self._owned.items() if owned.ready)

    @property
    def ends(self) -> Mapping[TopicPartition, int]:
        return {}

    @property
    def joined(self) -> bool:
        return self._group is None or self._member is not None

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        deadline = None if timeout is None else self._loop.time() + timeout
        while True:
            if self._failure:
                raise self._failure
            if self._closing:
                raise LogError("this consumer is closed", remedy="poll before closing, or open another one")
            self._arrived.clear()
            records = await self._fetch(max_records)
            if records or (deadline is not None and deadline <= self._loop.time()):
                return records
            await _wait(self._arrived, deadline)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        positions = {partition: Position(offset) for partition, offset in offsets.items()}
        await self.log.write(Tables.write, [], self.claim(positions), None)

    def claim(self, positions: Mapping[TopicPartition, Position], *, taken: bool = False) -> Commit:
        """These positions with this member's claims on their partitions.

        Args:
            taken: whether its listener must have taken them: what it did under an earlier claim is not for this one.

        Raises:
            NotOwnerError: it owns one of them no more.
            LogError: it is in no group.
        """
        if self._group is None:
            raise LogError("a consumer without a group cannot commit", remedy="name a group")
        if taken and (early := positions.keys() - self.assignment):
            raise not_owner(min(early), self._group)
        claims = {partition: (position, self._own(partition).generation) for partition, position in positions.items()}
        return Commit(*self.membership, claims)

    def _own(self, partition: TopicPartition) -> _Owned:
        if partition not in self._owned:
            raise not_owner(partition, self._group)
        return self._owned[partition]

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        self._own(partition).position = offset
        self._arrived.set()

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in self._owned.keys() & set(partitions):
            self._owned[partition].paused = True

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in self._owned.keys() & set(partitions):
            self._owned[partition].paused = False
        self._arrived.set()

    async def close(self) -> None:
        self._closing = True
        self._regrouped.set()
        self._arrived.set()
        await asyncio.wait({self._membership})

    def wake(self, *, regrouped: bool = False) -> None:
        """Look for records again, and at the group too if it has changed. Called on the event loop."""
        self._arrived.set()
        if regrouped:
            self._regrouped.set()

    async def _fetch(self, limit: int) -> list[Record]:
        wanted = {partition: owned.position for partition, owned in self._owned.items() if owned.readable}
        if not wanted:
            return []
        try:
            fetched = await self.log.read(Tables.fetch, wanted, limit, self._start)
        except LogUnavailableError as error:
            await self._wait_out(error)
            return []
        records: list[Record] = []
        for partition, (next_, found) in fetched.items():
            owned = self._owned.get(partition)
            if owned and owned.readable and owned.position == wanted[partition]:
                owned.position = next_
                # The next poll begins with another partition: a busy one cannot starve the rest.
                self._owned[partition] = self._owned.pop(partition)
                records += found
        return records

    async def _wait_out(self, error: LogUnavailableError) -> None:
        _log.warning("consumer of %s waits: %s", ", ".join(self._topics), error)
        await asyncio.sleep(_PAUSE_AFTER_TROUBLE)
        self.wake(regrouped=True)

    async def _keep_membership(self) -> None:
        try:
            while not self._closing:
                self._regrouped.clear()
                await self._look()
                interval = self.log.check_interval
                await _wait(self._regrouped, None if interval is None else self._loop.time() + interval)
            await self._give_back(list(self._owned))
        except Exception as error:  # noqa: BLE001 - an unknown topic or a failing listener must reach whoever polls
            self._failure = error
            if self._closing:  # nobody polls any more
                _log.warning("consumer of %s did not give back cleanly: %s", ", ".join(self._topics), error)
        finally:
            self._owned.clear()
            self._arrived.set()
            await self._leave()
            self.log.consumers.remove(self)

    async def _leave(self) -> None:
        if self._member:
            try:
                await self.log.write(Tables.leave, *self.membership)
            except LogError as error:  # the others will notice that the heartbeats have ended
                _log.warning("a member of group %s could not say that it leaves: %s", self._group, error)

    async def _look(self) -> None:
        try:
            owned, revoke = await self._settle()
            await self._lose([p for p in self._owned if owned.get(p) != self._owned[p].generation])
            await self._give_back(revoke)
            await self._take({p: owned[p] for p in owned if p not in self._owned and p not in revoke})
        except LogUnavailableError as error:
            if self._failure is error:
                raise
            await self._wait_out(error)

    async def _told(self, call: Awaitable[T]) -> T:
        """What the listener answers. What it raises ends the consumer, even if it looks like trouble of the log."""
        try:
            return await call
        except Exception as error:
            self._failure = error
            raise

    async def _settle(self) -> Step:
        self.looked = time.monotonic()
        if self._group is None:
            return Step(dict.fromkeys(await self.log.read(Tables.partitions, self._topics), 0), [])
        self._member, step = await self.log.write(Tables.settle, self._group, self._member, self._topics)
        return step

    async def _lose(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            del self._owned[partition]
        if self._listener and partitions:
            await self._told(self._listener.lost(partitions))

    async def _give_back(self, partitions: list[TopicPartition]) -> None:
        known = [partition for partition in partitions if partition in self._owned]
        for partition in known:
            self._owned[partition].revoking = True
        if self._listener and known:
            await self._told(self._listener.revoked(known))
        for partition in known:
            del self._owned[partition]
        if partitions and self._member:
            await self.log.write(Tables.release, *self.membership, partitions)

    async def _take(self, claims: Mapping[TopicPartition, int]) -> None:
        if not claims:
            return
        bounds = await self.log.read(Tables.bounds, claims)
        committed = await self.log.read(Tables.committed, self._group, claims) if self._group is not None else {}
        for partition, generation in claims.items():
            first, end = bounds[partition]
            usual = first if self._start == "earliest" else end
            self._owned[partition] = _Owned(generation, committed.get(partition, Position(usual)).offset)
        chosen = await self._told(self._listener.assigned(list(claims))) if self._listener else {}
        for partition in claims:
            owned = self._owned[partition]
            owned.position = chosen.get(partition, owned.position)
            owned.ready = True
        self._arrived.set()


async def _wait(event: asyncio.Event, until: float | None) -> None:
    """Wait for the event, until this time of the event loop or for ever."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await event.wait()

"""What lies between one service instance and the log of a world: where records are doubled, held up and lost with their sender."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self

from choreo.errors import LogUnavailableError
from choreo.log.embedded.consumer import EmbeddedConsumer
from choreo.log.embedded.log import EmbeddedLog
from choreo.log.embedded.producer import EmbeddedProducer, GaplessProducer
from choreo.log.memory import MemoryLog
from choreo.log.port import Consumer, Listener, NewRecord, Producer, Record, Start, TopicPartition
from choreo.log.tables import Commit
from choreo.testing.network import Network

Point = Literal["before handler", "after handler", "before commit", "after commit", "after publish"]


class DeadError(Exception):
    """Ends what runs in a thread of an instance that has died."""


class Link(EmbeddedLog):
    """The log as one instance sees it, until that dies.

    Args:
        service: whose instance it is; empty for a bus.
        on_point: told each point that the instance reaches; says whether it dies there.

    Attributes:
        dead: whether the instance has died: nothing that it does counts any more.
    """

    url = "memory://"
    check_interval = None

    def __init__(self, log: MemoryLog, network: Network, service: str, on_point: Callable[[Point], bool]) -> None:
        super().__init__(log, log)
        self.consumers = log.consumers
        self.network, self.service, self.dead = network, service, False
        self._on_point = on_point

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """The world closes the log."""

    def producer(self, *, transactional_id: str | None = None, gapless: bool = False) -> Producer:
        """See `Log.producer`."""
        return _LinkedGapless(self) if gapless else _Linked(self, transactional_id)

    def consumer(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        listener: Listener | None = None,
        start: Start = "earliest",
        ends: bool = False,  # noqa: ARG002 - there is no gap at the end
    ) -> Consumer:
        """See `Log.consumer`."""
        consumer = LinkedConsumer(self, topics, group, listener, start)
        self.consumers.append(consumer)
        return consumer

    def check(self) -> None:
        """Refuse what an instance does that has died."""
        if self.dead:
            raise LogUnavailableError("this instance has died")

    async def reach(self, point: Point) -> None:
        """The instance has come to this point; if it dies here, it never comes further."""
        if self.dead or self._on_point(point):
            await asyncio.Event().wait()

    def reach_in_thread(self, point: Point) -> None:
        """As `reach`, in a thread of the instance."""
        if self.dead or self._on_point(point):
            raise DeadError(f"service {self.service} has crashed {point}")

    async def append(
        self, write: Callable[[list[NewRecord]], Any], records: Sequence[NewRecord], *, whole: bool
    ) -> None:
        """Let a producer write; `whole`: whether that is a transaction with the positions of what was read."""
        self.check()
        if whole:
            await self.reach("before commit")
        sent = self.network.outgoing(records)
        await write(sent)
        self.network.journal.add(sent)
        if whole:
            await self.reach("after commit")
        if records and self.service:
            await self.reach("after publish")


class _Linked(EmbeddedProducer):
    """A producer at one end of a link."""

    def __init__(self, link: Link, transactional_id: str | None = None) -> None:
        super().__init__(link, transactional_id)
        self._link = link

    async def _write(self, records: Sequence[NewRecord], commit: Commit | None) -> None:
        write = super()._write
        await self._link.append(lambda sent: write(sent, commit), records, whole=commit is not None)


class _LinkedGapless(GaplessProducer):
    """A gapless producer at one end of a link."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link

    async def _write(self, records: Sequence[NewRecord], commit: Commit | None) -> None:
        write = super()._write
        await self._link.append(lambda sent: write(sent, commit), records, whole=False)


class LinkedConsumer(EmbeddedConsumer):
    """A consumer that a record which is held up keeps from reading on in its partition."""

    def __init__(
        self, link: Link, topics: Sequence[str], group: str | None, listener: Listener | None, start: Start
    ) -> None:
        super().__init__(link, topics, group, listener, start)
        self._link = link
        self._asked: set[TopicPartition] = set()
        self._held_up: set[TopicPartition] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        link.network.consumers.append(self)

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        """See `Consumer.poll`."""
        records = await super().poll(max_records, timeout)
        if not self._link.network.holds:
            return records
        stopped: set[TopicPartition] = set()
        return [record for record in records if not self._stops(record, stopped)]

    def _stops(self, record: Record, stopped: set[TopicPartition]) -> bool:
        """Whether this record cannot be had yet; from the first such one on its partition is not read."""
        at = TopicPartition(record.topic, record.partition)
        if at in stopped:
            return True
        until = self._link.network.held_until(record, self._link.service)
        if until is None:
            return False
        stopped.add(at)
        self._held_up.add(at)
        self._owned[at].position, self._owned[at].paused = record.offset, True
        if until:
            task = self._loop.create_task(self._let_go_after(at, until))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        return True

    async def _let_go_after(self, at: TopicPartition, seconds: float) -> None:
        await self._link.network.clock.sleep(seconds)
        await self._let_go({at})

    async def let_go(self) -> None:
        """Look again at everything that is held up."""
        await self._let_go(self._held_up)

    async def _let_go(self, partitions: set[TopicPartition]) -> None:
        going = partitions - self._asked
        self._held_up = self._held_up - partitions
        await super().resume(going)

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        named = set(partitions)
        self._asked |= named
        await super().pause(named)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.resume`; what is held up is found again by the next poll."""
        named = set(partitions)
        self._asked -= named
        await super().resume(named)

    async def close(self) -> None:
        """See `Consumer.close`; one that has died gives nothing back."""
        for task in self._waiting:
            task.cancel()
        if self in self._link.network.consumers:
            self._link.network.consumers.remove(self)
        if self._link.dead:
            self._listener = None
            self._membership.cancel()
        await super().close()

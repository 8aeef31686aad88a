"""The consumer as the event loop sees it; its owner thread does the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import confluent_kafka as ck

from choreo.errors import LogError, NotOwnerError
from choreo.log.kafka.errors import RebalancingError
from choreo.log.kafka.owner import Owner
from choreo.log.kafka.partitions import theirs
from choreo.log.kafka.telemetry import log
from choreo.log.port import Record, TopicPartition

T = TypeVar("T")

_SEEK_WAIT = 5.0
_REBALANCE_WAIT = 5.0
_LEAVE_WAIT = 3.0
_CLOSE_WAIT = 40.0  # more than a listener has; a broker that hangs is left to expel the member


class KafkaConsumer:
    """Implements `choreo.log.port.Consumer`."""

    def __init__(self, owner: Owner, group: str | None) -> None:
        self._owner, self._group = owner, group
        self._left = False  # closing it hangs: its thread is left behind

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return self._owner.partitions.owned

    @property
    def ends(self) -> Mapping[TopicPartition, int]:
        return self._owner.buffer.ends()

    @property
    def joined(self) -> bool:
        return self._owner.partitions.joined

    @property
    def ended(self) -> bool:
        """Whether it is closed and its thread gone."""
        return self._owner.ended.done()

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        if timeout is None:
            return await self._poll(max_records)
        try:
            async with asyncio.timeout(timeout):
                return await self._poll(max_records)
        except TimeoutError:
            return []

    async def _poll(self, max_records: int) -> list[Record]:
        owner = self._owner
        while True:
            owner.arrived.clear()
            if owner.failure is not None:
                raise owner.failure
            if records := owner.buffer.take(max_records):
                owner.signal.set()  # there is room
                return records
            await owner.arrived.wait()

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self._group is None:
            raise LogError("a reader without a group cannot commit", remedy="name a group")
        deadline = time.monotonic() + _REBALANCE_WAIT
        while offsets:
            try:
                await self._owner.call(lambda future: self._commit(offsets, future))
                return
            except RebalancingError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    def _commit(self, offsets: Mapping[TopicPartition, int], future: Future[None]) -> None:
        self._check_owned(offsets)
        wanted = [ck.TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        self._owner.commits.begin(self._owner.client, wanted, future, at_once=self._owner.partitions.asking)

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        await self._call(lambda client: self._seek(client, partition, offset))

    def _seek(self, client: ck.Consumer, partition: TopicPartition, offset: int) -> None:
        deadline = time.monotonic() + _SEEK_WAIT
        while True:
            self._check_owned([partition])
            try:
                client.seek(ck.TopicPartition(*partition, offset))
                self._owner.partitions.begun([partition])
                return self._owner.buffer.drop({partition})
            except ck.KafkaException as error:
                # Just assigned, and librdkafka has not begun to read it.
                if error.args[0].code() != ck.KafkaError._STATE or time.monotonic() > deadline:  # noqa: SLF001
                    raise
                time.sleep(0.01)

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        asked = set(partitions)

        def work(client: ck.Consumer) -> None:
            client.pause(theirs(asked & self.assignment))
            self._owner.buffer.pause(asked & self.assignment)

        await self._call(work)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        asked = set(partitions)

        def work(client: ck.Consumer) -> None:
            self._owner.buffer.resume(asked)
            self._owner.wake()
            if not self._owner.partitions.stalled:
                client.resume(theirs(asked & self.assignment))

        await self._call(work)

    async def group_metadata(self, partitions: Iterable[TopicPartition]) -> Any:
        """What a transaction needs to commit positions of these partitions, as long as no rebalance comes between.

        Raises:
            NotOwnerError: one of them is not owned (any more), or its listener has not taken it.
        """

        def work(client: ck.Consumer) -> Any:
            self._check_owned(partitions)
            metadata = client.consumer_group_metadata()
            # A member that was expelled has no id until it joins again, and Kafka checks no commit that names none.
            if self._owner.partitions.taking.intersection(partitions) or not client.memberid():
                raise NotOwnerError(f"{self._owner.name} owns these partitions anew", remedy="forget what it did there")
            return metadata

        return await self._call(work)

    async def close(self) -> None:
        """Leave the group at once; goes on to the end even if the caller is cancelled."""
        self._owner.closing = True
        self._owner.signal.set()
        ended, deadline = asyncio.wrap_future(self._owner.ended), time.monotonic() + _CLOSE_WAIT
        while not self.ended and not self._left and time.monotonic() < deadline:
            if not self.assignment:  # given back: what is left is a word to the broker
                deadline = min(deadline, time.monotonic() + _LEAVE_WAIT)
            await asyncio.wait([ended], timeout=_LEAVE_WAIT / 10)
        if not self.ended and not self._left:
            self._left = True
            log.warning("kafka_close_hangs", client=self._owner.name, remedy="its thread is left behind")

    def _check_owned(self, partitions: Iterable[TopicPartition]) -> None:
        if foreign := set(partitions) - self.assignment:
            named = ", ".join(f"{topic}-{partition}" for topic, partition in sorted(foreign))
            raise NotOwnerError(f"{self._owner.name} does not own {named}", remedy="forget what it did there")

    async def _call(self, work: Callable[[ck.Consumer], T]) -> T:
        return await self._owner.call(lambda future: future.set_result(work(self._owner.client)))

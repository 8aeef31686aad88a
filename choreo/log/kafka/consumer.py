"""The consumer as the event loop sees it; its owner thread does the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import confluent_kafka as ck

from choreo.errors import LogError, NotOwnerError
from choreo.log.kafka.errors import RebalancingError
from choreo.log.kafka.owner import Owner
from choreo.log.kafka.partitions import theirs
from choreo.log.port import Record, TopicPartition

_SEEK_WAIT = 5.0
_REBALANCE_WAIT = 5.0


class KafkaConsumer:
    """See `choreo.log.port.Consumer`."""

    def __init__(self, owner: Owner, group: str | None) -> None:
        self._owner, self._group = owner, group

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return self._owner.partitions.owned

    @property
    def ended(self) -> bool:
        """Whether it is closed and its thread gone."""
        return self._owner.ended.done()

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        """Records as they come; empty when `timeout` seconds pass without one."""
        owner = self._owner
        try:
            async with asyncio.timeout(timeout):
                while True:
                    owner.arrived.clear()
                    if records := owner.take(max_records):
                        return records
                    await owner.arrived.wait()
        except TimeoutError:
            return []

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for the group."""
        if self._group is None:
            raise LogError("a reader without a group cannot commit", remedy="name a group")
        if not offsets:
            return None
        deadline = time.monotonic() + _REBALANCE_WAIT
        while True:
            try:
                return await self._owner.commit(dict(offsets))
            except RebalancingError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        await self._owner.call(lambda client: self._seek(client, partition, offset))

    def _seek(self, client: ck.Consumer, partition: TopicPartition, offset: int) -> None:
        deadline = time.monotonic() + _SEEK_WAIT
        while True:
            if partition not in self.assignment:
                raise NotOwnerError(f"seek in {partition.topic}-{partition.partition}, which is not owned here")
            try:
                client.seek(ck.TopicPartition(*partition, offset))
            except ck.KafkaException as error:
                # Just assigned, and librdkafka has not begun to read it.
                if error.args[0].code() != ck.KafkaError._STATE or time.monotonic() > deadline:  # noqa: SLF001
                    raise
                time.sleep(0.01)
            else:
                return self._owner.buffer.drop({partition})

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return no records of these until resumed."""
        pausing = set(partitions)

        def work(client: ck.Consumer) -> None:
            client.pause(theirs(pausing & self.assignment))
            self._owner.partitions.paused |= pausing & self.assignment
            self._owner.buffer.hold(pausing)

        await self._owner.call(work)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Undo `pause`."""
        resuming = set(partitions)

        def work(client: ck.Consumer) -> None:
            known = self._owner.partitions
            known.paused -= resuming
            self._owner.buffer.release(resuming)
            self._owner.wake()
            if not known.stalled:
                client.resume(theirs(resuming & self.assignment))

        await self._owner.call(work)

    async def group_metadata(self) -> Any:
        """What a transaction needs to commit offsets for this member."""
        return await self._owner.call(lambda client: client.consumer_group_metadata())

    async def close(self) -> None:
        """Leave the group at once; goes on to the end even if the caller is cancelled."""
        self._owner.close()
        await asyncio.shield(asyncio.wrap_future(self._owner.ended))

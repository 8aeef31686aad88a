"""Reading partitions to the end that they have now, and on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Self

from choreo.errors import UnknownTopicError
from choreo.log.port import Log, Record, TopicPartition

_SILENCE, _MARKER_SILENCE = 3.0, 1.0
"""Seconds without a record after which the rest may be what nobody sees: the marker of a transaction, which is a single
last offset, or a whole transaction that was aborted."""


class Reader:
    """Reads all partitions of some topics, without a group; an async context manager. Implements `Listener`.

    Args:
        starts: where to begin, in every partition of the topics that are read.
    """

    def __init__(self, log: Log, starts: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._positions = dict(starts)
        self._consumer = log.consumer(sorted({at.topic for at in starts}), listener=self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.close()

    async def catch_up(self) -> AsyncIterator[Record]:
        """The records up to the end that the partitions have now."""
        ends, asked_again = await self._log.end_offsets(self._positions), False
        while (missing := max(end - self._positions[at] for at, end in ends.items())) > 0:
            records = await self._poll(_MARKER_SILENCE if missing == 1 else _SILENCE)
            for record in records:
                yield record
            if not records and (asked_again or missing == 1):
                self._positions = {at: max(offset, ends[at]) for at, offset in self._positions.items()}
            elif not records:  # the silence counts only if the leaders of all partitions answer
                ends = await self._log.end_offsets(self._positions)
            asked_again = not records

    async def follow(self) -> AsyncIterator[Record]:
        """What comes, without an end."""
        while True:
            for record in await self._poll(None):
                yield record

    async def _poll(self, timeout: float | None) -> list[Record]:
        records = await self._consumer.poll(timeout=timeout)
        for record in records:
            at = TopicPartition(record.topic, record.partition)
            self._positions[at] = max(self._positions[at], record.offset + 1)
        return records

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to begin."""
        return {at: self._positions[at] for at in partitions if at in self._positions}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Nobody else reads: there is nothing to do."""

    lost = revoked


async def record_at(log: Log, at: TopicPartition, offset: int) -> Record | None:
    """The record that lies there; None if it is gone, or never was."""
    if at.topic not in await log.topics():
        return None
    ends = await log.end_offsets(await partitions_of(log, [at.topic]))
    if not 0 <= offset < ends.get(at, 0):
        return None
    async with Reader(log, ends | {at: offset}) as reader:
        async for record in reader.catch_up():
            if (record.topic, record.partition) == at:
                return record if record.offset == offset else None
    return None


async def partitions_of(log: Log, topics: Collection[str]) -> list[TopicPartition]:
    """All partitions of these topics.

    Raises:
        UnknownTopicError: one of them does not exist.
    """
    known = await log.topics()
    if missing := sorted(set(topics) - set(known)):
        raise UnknownTopicError(f"the log {log.url} has no topics {', '.join(missing)}")
    return [TopicPartition(name, number) for name in topics for number in range(known[name].partitions)]

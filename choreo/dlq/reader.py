"""Reading topics to the end that they have now, and later on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from choreo.log.port import Log, Record, TopicPartition

_SILENCE, _MARKER_SILENCE = 5.0, 1.0
"""Seconds without a record that count as the end: the last offset of a partition may be a transaction's marker, which
nobody sees. The shorter time is for when nothing but such a last offset is missing."""


class Reader:
    """Reads partitions without a group. Implements `Listener`: it begins at given places.

    Args:
        starts: where to begin, in every partition of the topics that are read.
    """

    def __init__(self, log: Log, starts: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._positions = dict(starts)
        self._consumer = log.consumer(sorted({at.topic for at in starts}), listener=self)

    async def catch_up(self) -> AsyncIterator[Record]:
        """The records up to the end that the partitions have now."""
        ends = await self._log.end_offsets(self._positions)
        while (missing := max(end - self._positions[at] for at, end in ends.items())) > 0:
            records = await self._consumer.poll(timeout=_SILENCE if missing > 1 else _MARKER_SILENCE)
            for record in records:
                at = TopicPartition(record.topic, record.partition)
                self._positions[at] = max(self._positions[at], record.offset + 1)
                yield record
            if not records:
                self._positions |= ends

    async def close(self) -> None:
        """Free what it holds."""
        await self._consumer.close()

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to begin."""
        return {at: self._positions[at] for at in partitions if at in self._positions}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Nobody else reads: there is nothing to do."""

    lost = revoked


async def partitions_of(log: Log, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of these topics."""
    known = await log.topics()
    return [TopicPartition(name, number) for name in topics for number in range(known[name].partitions)]

"""What a consumer owns, and the talk with its listener when that changes. Used by the consumer's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck

from choreo.errors import LogError
from choreo.log.kafka.buffer import Buffer
from choreo.log.kafka.telemetry import log
from choreo.log.port import Listener, Record, TopicPartition

REVOKE_WAIT = 25.0
"""Seconds a listener has to give partitions up, while other members wait for them."""


class Partitions:
    """The partitions of one consumer.

    Args:
        limit: seconds a listener may take before the group would give up on this member.
        wait: waits so many seconds for a future, doing the commands that come meanwhile.
        fail: takes what a listener raised.
        end_offsets: asks the log, blocking; None unless reading starts at the end.
    """

    def __init__(
        self,
        listener: Listener | None,
        buffer: Buffer,
        limit: float,
        wait: Callable[[Future[Any], float], None],
        fail: Callable[[Exception], None],
        end_offsets: Callable[[Iterable[TopicPartition]], dict[TopicPartition, int]] | None,
    ) -> None:
        self.owned: frozenset[TopicPartition] = frozenset()
        self.joined = False  # the group has given this member its share, be it none
        self.moved: set[TopicPartition] = set()  # revoked or lost since this was last cleared
        self.stalled = False  # all paused, because nobody takes records
        self.taking: set[TopicPartition] = set()  # owned, but the listener has not taken them yet
        self.asking = False  # inside a rebalance, waiting for the listener
        self.starts: dict[TopicPartition, int] = {}  # where to begin, of those of which no record has come yet
        self._loop = asyncio.get_running_loop()
        self._listener, self._buffer, self._limit = listener, buffer, limit
        self._wait, self._fail, self._end_offsets = wait, fail, end_offsets

    def on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Ask the listener where to start, then start there."""
        added = ours(partitions)
        starts = self._ends(consumer, partitions)
        self.owned |= set(added)
        self.taking = set(added)
        if self._listener is not None and added:
            starts |= self._ask(self._listener.assigned(added), self._limit) or {}
        self.taking.clear()
        for partition, key in zip(partitions, added, strict=True):
            partition.offset = starts.get(key, partition.offset)
        self.starts |= {key: partition.offset for key, partition in zip(added, partitions, strict=True)}
        consumer.resume(partitions)  # librdkafka remembers a pause from an earlier ownership
        consumer.incremental_assign(partitions)
        self.joined = True
        if pausing := set(added) if self.stalled else self._buffer.paused & set(added):
            consumer.pause(theirs(pausing))

    def on_revoke(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Let the listener finish, then forget them; librdkafka itself stops reading them after this callback."""
        gone = self._purged(partitions)
        if self._listener is not None and gone:
            self._ask(self._listener.revoked(gone), min(self._limit, REVOKE_WAIT))
        self._forget(gone)

    def on_lost(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Forget them first: they are somebody else's already."""
        self.joined = False
        gone = self._purged(partitions)
        self._forget(gone)
        if self._listener is not None and gone:
            self._ask(self._listener.lost(gone), min(self._limit, REVOKE_WAIT))

    def begun(self, partitions: Iterable[TopicPartition]) -> None:
        """There is no need (any more) to see where these begin."""
        for key in partitions:
            self.starts.pop(key, None)

    def complete(self, consumer: ck.Consumer, records: list[Record]) -> list[Record]:
        """These records without those of a partition that does not begin at its start: that is read once more, from there.

        A gap may be right (compaction, the marks of transactions), and is so the second time. But when a partition goes
        during `consume`, librdkafka keeps the position of what that call returns, and if another rebalance pauses the
        partition soon after it has come back, reads on from there instead of from its new start.
        """
        again = set()
        for record in records:
            start = self.starts.pop(key := TopicPartition(record.topic, record.partition), None)
            if start is not None and 0 <= start < record.offset:
                again.add(key)
                try:
                    consumer.seek(ck.TopicPartition(*key, start))
                except ck.KafkaException:  # it is just going, or the next record is as good a sign
                    self.starts[key] = start
        return [record for record in records if record[:2] not in again] if again else records

    def ended(
        self, consumer: ck.Consumer, ends: dict[TopicPartition, int], elsewhere: Collection[tuple[str, int]]
    ) -> dict[TopicPartition, int]:
        """Where partitions end, but for those that are read elsewhere by now.

        An end that comes before the first record, and not where the partition was to begin, is no better than such a
        record: that is read once more from its start, and then believed.
        """
        believed = {}
        for at, end in ends.items():
            start = self.starts.pop(at, None)
            if start is not None and 0 <= start < end and at not in elsewhere:
                try:
                    consumer.seek(ck.TopicPartition(*at, start))
                except ck.KafkaException:  # it is just going
                    self.starts[at] = start
            elif at not in elsewhere:
                believed[at] = end
        return believed

    def _purged(self, partitions: list[ck.TopicPartition]) -> list[TopicPartition]:
        gone = ours(partitions)
        self.begun(gone)
        self.moved.update(gone)
        self._buffer.drop(gone)
        return gone

    def _forget(self, gone: list[TopicPartition]) -> None:
        self.owned -= set(gone)
        self._buffer.paused -= set(gone)

    def _ends(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> dict[TopicPartition, int]:
        """Where the log ends now, for those without a commit; librdkafka asks later, and would miss what comes between."""
        if self._end_offsets is None:
            return {}
        try:
            fresh = [known for known in consumer.committed(partitions, timeout=10) if known.offset < 0]
            return self._end_offsets(ours(fresh))
        except (ck.KafkaException, LogError) as error:
            log.warning("kafka_end_offsets_unknown", reason=str(error))
            return {}

    def _ask(self, answer: Coroutine[Any, Any, Any], limit: float) -> Any:
        """Run a listener's coroutine on the loop; what goes wrong with it ends the consumer."""
        try:
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        except RuntimeError:  # the loop is closed: nobody is left to listen
            answer.close()
            return None
        self.asking = True
        self._wait(future, limit)
        self.asking = False
        try:
            if future.cancel():
                what = f"the listener took more than {limit:.0f} s over a rebalance"
                raise LogError(what, remedy="let it wait for less")
            return future.result()
        except Exception as error:  # noqa: BLE001 - partitions it could not take in must not be read on
            self._fail(error)
            return None


def ours(partitions: Iterable[ck.TopicPartition]) -> list[TopicPartition]:
    """The client's partitions as choreo's."""
    return [TopicPartition(partition.topic, partition.partition) for partition in partitions]


def theirs(partitions: Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    """The partitions of choreo as the client's."""
    return [ck.TopicPartition(*partition) for partition in partitions]

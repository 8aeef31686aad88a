"""What a consumer owns, and the talk with its listener when that changes. Used by the consumer's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import confluent_kafka as ck

from choreo.errors import LogError
from choreo.log.kafka.buffer import Buffer
from choreo.log.kafka.telemetry import log
from choreo.log.port import Listener, TopicPartition

T = TypeVar("T")

REVOKE_WAIT = 25.0
"""A listener that needs more seconds to give partitions up loses them: other members wait for them."""


class Partitions:
    """The partitions of one consumer.

    Args:
        buffer: purged of records whose partition goes.
        listener: called on `loop`.
        limit: how many seconds a listener may take before the group would give up on this member.
        end_offsets: asks the log, blocking; None unless reading starts at the end.
        signal: set by whoever wants `serve` to be called while a listener is waited for.
        serve: runs the commands that are waiting.
        fail: takes what a listener raised.
    """

    def __init__(
        self,
        buffer: Buffer,
        listener: Listener | None,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: float,
        end_offsets: Callable[[Iterable[TopicPartition]], dict[TopicPartition, int]] | None,
        signal: threading.Event,
        serve: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.owned: frozenset[TopicPartition] = frozenset()
        self.paused: set[TopicPartition] = set()  # by the user
        self.moved: set[TopicPartition] = set()  # revoked or lost since this was last cleared
        self.stalled = False  # all paused, because nobody takes records
        self.asking = False  # a listener is being waited for, inside a rebalance
        self._buffer, self._listener, self._loop, self._limit = buffer, listener, loop, limit
        self._end_offsets, self._signal, self._serve, self._fail = end_offsets, signal, serve, fail

    def on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Ask the listener where to start, then start there."""
        added = ours(partitions)
        starts = self._ends(consumer, partitions)
        self.owned |= set(added)
        if self._listener is not None and added:
            starts |= self._ask(self._listener.assigned(added), self._limit) or {}
        for partition, key in zip(partitions, added, strict=True):
            partition.offset = starts.get(key, partition.offset)
        consumer.incremental_assign(partitions)
        if pausing := set(added) if self.stalled else self.paused & set(added):
            consumer.pause(theirs(pausing))

    def on_revoke(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Let the listener finish, then forget them; librdkafka itself stops reading them after this callback."""
        gone = ours(partitions)
        self._purge(gone)
        if self._listener is not None and gone:
            self._ask(self._listener.revoked(gone), min(self._limit, REVOKE_WAIT))
        self.owned -= set(gone)

    def on_lost(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Forget them first: they are somebody else's already."""
        gone = ours(partitions)
        self.owned -= set(gone)
        self._purge(gone)
        if self._listener is not None and gone:
            self._ask(self._listener.lost(gone), min(self._limit, REVOKE_WAIT))

    def _purge(self, gone: list[TopicPartition]) -> None:
        self.moved.update(gone)
        self.paused -= set(gone)
        self._buffer.drop(gone)

    def _ends(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> dict[TopicPartition, int]:
        """Where the log ends now, for those without a commit; librdkafka would ask later, and miss what comes between."""
        if self._end_offsets is None:
            return {}
        try:
            fresh = [known for known in consumer.committed(partitions, timeout=10) if known.offset < 0]
            return self._end_offsets(ours(fresh))
        except (ck.KafkaException, LogError) as error:
            log.warning("kafka_end_offsets_unknown", reason=str(error))
            return {}

    def _ask(self, answer: Coroutine[Any, Any, T], limit: float) -> T | None:
        """Run a listener's coroutine on the loop; serve commands until it ends."""
        try:
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        except RuntimeError:  # the loop is closed: nobody is left to listen
            answer.close()
            return None
        future.add_done_callback(lambda _: self._signal.set())
        self.asking, deadline = True, time.monotonic() + limit
        while not future.done() and (left := deadline - time.monotonic()) > 0:
            self._signal.wait(left)
            self._signal.clear()
            self._serve()
        self.asking = False
        if future.cancel():
            remedy = "let it wait for less"
            self._fail(LogError(f"a listener took more than {limit:.0f} s over a rebalance", remedy=remedy))
            return None
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 - what a listener could not take in must not be read on
            self._fail(error)
            return None


def ours(partitions: Iterable[ck.TopicPartition]) -> list[TopicPartition]:
    """librdkafka's partitions as choreo's."""
    return [TopicPartition(partition.topic, partition.partition) for partition in partitions]


def theirs(partitions: Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    """choreo's partitions as librdkafka's."""
    return [ck.TopicPartition(*partition) for partition in partitions]

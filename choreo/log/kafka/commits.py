"""Commits on their way: librdkafka answers by a callback that names the offsets, not the call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

import confluent_kafka as ck

from choreo.log.kafka.errors import explained

_Offsets = frozenset[tuple[str, int, int]]


class Commits:
    """Which future waits for which commit. Used by the consumer's thread only."""

    def __init__(self, what: str, who: str) -> None:
        self._what, self._who = what, who
        self._waiting: dict[_Offsets, deque[Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(
        self, consumer: ck.Consumer, offsets: list[ck.TopicPartition], future: Future[None], *, at_once: bool
    ) -> None:
        """Commit; with `at_once` the thread waits, as it must inside a rebalance, where no answer comes by polling."""
        if at_once:
            self._settle(future, None, consumer.commit(offsets=offsets, asynchronous=False))
        else:
            consumer.commit(offsets=offsets, asynchronous=True)
            self._waiting.setdefault(_key(offsets), deque()).append(future)

    def answered(self, error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        """The broker's answer; to a commit that was waited for it comes once more, and finds nobody."""
        key = _key(partitions)
        if key in self._waiting:
            self._settle(self._waiting[key].popleft(), error, partitions)
            if not self._waiting[key]:
                del self._waiting[key]

    def refuse(self, reason: Exception) -> None:
        """No more answers will come."""
        for future in (future for waiting in self._waiting.values() for future in waiting):
            future.set_exception(reason)
        self._waiting.clear()

    def _settle(self, future: Future[None], error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        error = error or next((partition.error for partition in partitions if partition.error), None)
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(explained(error, self._what, self._who))


def _key(partitions: Iterable[ck.TopicPartition]) -> _Offsets:
    return frozenset((partition.topic, partition.partition, partition.offset) for partition in partitions)

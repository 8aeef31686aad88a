"""Offsets of the log and of its groups, asked for by consumers that read nothing. Everything here blocks.

Not by the admin client: when a broker's connection has gone, its answer leaves out partitions without an error, and it may
wait for a connection that nobody opens any more; its look-up of committed offsets can abort the process (librdkafka
#3663, #4605), or go on asking a coordinator that has moved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka as ck

from choreo.log.kafka.errors import NO_ANSWER
from choreo.log.kafka.partitions import ours
from choreo.log.port import Position, TopicPartition


class Offsets:
    """Where partitions begin and end, by one client for all questions.

    Args:
        make: makes the client, when it is needed first.
        wait: seconds that one question may last.

    Raises:
        ck.KafkaException: there is no answer (all its methods).
    """

    def __init__(self, make: Callable[[], ck.Consumer], wait: float) -> None:
        self._make, self._wait = make, wait
        self._lock = threading.Lock()
        self._client: ck.Consumer | None = None

    def first(self, at: TopicPartition) -> int:
        """The offset of the first record that is kept."""
        return self._bounds(at)[0]

    def end(self, at: TopicPartition) -> int:
        """The offset after the last record; records of transactions that are not over do not count."""
        return self._bounds(at)[1]

    def since(self, at: TopicPartition, timestamp: int) -> int:
        """The offset of the first record that is not older (ms since the epoch); -1 if there is none."""
        (found,) = self._asking().offsets_for_times([ck.TopicPartition(*at, timestamp)], timeout=self._wait)
        if found.error is not None:
            raise ck.KafkaException(found.error)
        return int(found.offset)

    def renew(self) -> None:
        """Ask by another client from now on."""
        with self._lock:
            self._client = None

    def close(self) -> None:
        """End the client."""
        if self._client is not None:
            self._client.close()

    def _bounds(self, at: TopicPartition) -> tuple[int, int]:
        bounds = self._asking().get_watermark_offsets(ck.TopicPartition(*at), timeout=self._wait)
        if bounds is None or min(bounds) < 0:
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))  # noqa: SLF001 - librdkafka's code for it
        return bounds

    def _asking(self) -> ck.Consumer:
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client


def committed(client: ck.Consumer, asked: Sequence[ck.TopicPartition], wait: float) -> dict[TopicPartition, Position]:
    """What the client's group has committed; closes the client, which is for one question.

    Raises:
        ck.KafkaException: there is no answer.
    """
    try:
        known: Any = client.committed(list(asked), timeout=wait)
    except ck.KafkaException as error:
        told = client.poll(0)  # why no coordinator was found is told as if it were a message
        why = None if told is None else told.error()
        if why is not None and why.code() not in NO_ANSWER:  # a lost connection is not why: it is made again
            raise ck.KafkaException(why) from error
        raise
    finally:
        client.close()
    for one in known:  # also when a transaction that has been committed is being written down: the offset will change
        if one.error:
            raise ck.KafkaException(one.error)
    positions = (Position(one.offset, one.metadata or "") for one in known)
    return {key: position for key, position in zip(ours(known), positions, strict=True) if position.offset >= 0}

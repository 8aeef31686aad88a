"""The producer: idempotent, every record acknowledged, the loop woken once per append."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, RecordTooLargeError
from choreo.log.kafka import telemetry
from choreo.log.kafka.errors import TOO_LARGE, explained
from choreo.log.port import Consumer, NewRecord, TopicPartition

PATIENCE = 30.0
"""How many seconds a full queue, a transaction or a close may take."""

Failure = tuple[ck.KafkaError, ck.Message]
Report = Callable[[ck.KafkaError | None, ck.Message], None]


class Client:
    """A librdkafka producer and the thread that polls it for acknowledgements."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.fatal: ck.KafkaError | None = None  # the error that ended it
        self.ended: Future[None] = Future()
        self._stopping = False
        outage = telemetry.Outage(f"producer {settings['client.id']}")
        self.producer = ck.Producer(telemetry.callbacks(settings, outage.seen))
        threading.Thread(target=self._run, name="choreo producer", daemon=True).start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self.producer.poll(0.1)
            self.producer.flush(PATIENCE)
        except ck.KafkaException as error:  # the client is of no use any more, rightly or wrongly
            self.fatal = error.args[0]
        self.producer.purge()
        with contextlib.suppress(ck.KafkaException):
            self.producer.flush(1)  # whoever still waits is told that it failed
        self.ended.set_result(None)

    def stop(self) -> None:
        """Begin to end; `ended` tells when."""
        self._stopping = True


class _Delivery:
    """The acknowledgements of one append; `report` is called by the polling thread alone."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._reported, self._expected = 0, -1

    def report(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """What became of one record."""
        if error is not None:
            self.failures.append((error, message))
        self._reported += 1
        if self._reported == self._expected:
            self._loop.call_soon_threadsafe(self._finish)

    async def of(self, count: int) -> list[Failure]:
        """Wait until `count` records are reported; those that failed."""
        self._expected = count
        if self._reported == count:  # the last report came before it was known to be the last
            self._finish()
        await self._done
        return self.failures

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class KafkaProducer:
    """See `choreo.log.port.Producer`.

    Args:
        settings: of the librdkafka producer.
        who: the principal, for error messages.
        limit_of: asks for a topic's `max.message.bytes`, blocking; None if the log does not tell.
    """

    def __init__(self, settings: dict[str, Any], who: str, limit_of: Callable[[str], int | None]) -> None:
        self.settings, self.who = settings, who
        self._limit_of = limit_of
        self._client = Client(settings)
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether it is closed and its thread gone."""
        return self._closed and self._client.ended.done()

    def live(self) -> Client:
        """The client; a new one after an error that only ends a client."""
        if self._closed:
            raise LogError("the producer is closed", remedy="make a new one")
        if self._client.fatal is not None:
            self._client.stop()
            self._client = Client(self.settings)
        return self._client

    async def append(self, records: Sequence[NewRecord]) -> None:
        """Append all; returns when every record is acknowledged."""
        if not (failures := await self._append(records)):
            return
        if (reason := await asyncio.to_thread(self.explained, failures)) is not None:
            raise reason
        for record in records:  # each is small enough, together they were not: one by one they fit
            if (failures := await self._append([record])) and (
                reason := await asyncio.to_thread(self.explained, failures)
            ):
                raise reason

    async def _append(self, records: Sequence[NewRecord]) -> list[Failure]:
        producer, delivery = self.live().producer, _Delivery()
        next_, deadline = 0, time.monotonic() + PATIENCE
        while next_ < len(records):
            try:
                for next_ in range(next_, len(records)):  # noqa: B020 - goes on where the queue was full
                    send(producer, records[next_], delivery.report)
                break
            except BufferError:
                if time.monotonic() > deadline:
                    raise full() from None
                await asyncio.sleep(0.005)
            except ck.KafkaException as error:
                raise self.refused(error.args[0], records[next_]) from error
        return await delivery.of(len(records))

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        offsets: Mapping[TopicPartition, int] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        """Only a transactional producer can."""
        del records, offsets, consumer
        raise ConfigurationError("this producer cannot append atomically", remedy="give it a transactional_id")

    async def close(self) -> None:
        """Wait for what is under way, half a minute at most, then free everything."""
        self._closed = True
        self._client.stop()
        await asyncio.shield(asyncio.wrap_future(self._client.ended))

    def explained(self, failures: Sequence[Failure]) -> LogError | None:
        """Why records failed; None if several did and each is small enough: only their batch was too large."""
        largest = max((message for error, message in failures if error.code() in TOO_LARGE), key=_size, default=None)
        if largest is None:
            error, message = failures[0]
            return self._reason(self._client.fatal or error, str(message.topic()))
        topic = str(largest.topic())
        limit = self._limit_of(topic)
        if limit is not None and _size(largest) <= limit and len(failures) > 1:
            return None
        return _too_large(topic, largest.key(), _size(largest), limit)

    def refused(self, error: ck.KafkaError, record: NewRecord) -> LogError:
        """Why the client did not even take a record."""
        if error.code() in TOO_LARGE:
            size = len(record.key or b"") + len(record.value or b"")
            return _too_large(record.topic, record.key, size, int(self.settings["message.max.bytes"]))
        return self._reason(error, record.topic)

    def _reason(self, error: ck.KafkaError, topic: str) -> LogError:
        """What is fatal for a client need not be for the next one: that word is left out."""
        return explained(ck.KafkaError(error.code(), error.str()), f"append to {topic}", self.who)


def send(producer: ck.Producer, record: NewRecord, report: Report) -> None:
    """Hand one record to the client's queue."""
    topic, key, value, headers, timestamp, partition = record
    where = -1 if partition is None else partition
    wide: Any = headers  # the client's type allows more, and lists are invariant
    producer.produce(topic, value, key, where, headers=wide, on_delivery=report, timestamp=timestamp or 0)


def full() -> LogUnavailableError:
    """The error for a queue that does not empty."""
    return LogUnavailableError("the producer's queue stays full", remedy="see whether the brokers are up, then repeat")


def _size(message: ck.Message) -> int:
    return len(message.key() or b"") + len(message.value() or b"")


def _too_large(topic: str, key: bytes | None, size: int, limit: int | None) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"a record of {size:,} bytes (key {key!r}) is too large for topic {topic}",
        why=f"its max.message.bytes is {limit:,}" if limit is not None else "it is over the topic's max.message.bytes",
        remedy="send a reference to the data instead of the data, or raise max.message.bytes on the topic",
    )

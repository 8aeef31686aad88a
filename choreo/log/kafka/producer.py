"""The producer: idempotent, every record acknowledged, the loop woken once per append; or transactional."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, NotOwnerError, RecordTooLargeError
from choreo.log.kafka import telemetry
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import TOO_LARGE, explained
from choreo.log.port import Consumer, NewRecord, TopicPartition

_Failure = tuple[ck.KafkaError, ck.Message]

PATIENCE = 30.0
"""How many seconds a full queue, a transaction's step or a close may take."""


class _Client:
    """A librdkafka producer and the thread that polls it for acknowledgements."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.fatal = False
        self._stopping = threading.Event()
        self.ended: Future[None] = Future()
        outage = telemetry.Outage(f"producer {settings['client.id']}")

        def on_error(error: ck.KafkaError) -> None:
            self.fatal = self.fatal or error.fatal()
            outage.seen(error)

        self.producer = ck.Producer(telemetry.callbacks(settings, on_error))
        threading.Thread(target=self._run, name="choreo producer", daemon=True).start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.producer.poll(0.1)
        self.producer.flush(PATIENCE)
        self.producer.purge()
        self.producer.flush(0)  # whoever still waits is told that it failed
        self.ended.set_result(None)

    def stop(self) -> None:
        """Begin to end; `ended` tells when."""
        self._stopping.set()


class _Delivery:
    """The acknowledgements of one append. Counted by the polling thread, which alone calls `report`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.failures: list[_Failure] = []
        self.done = loop.create_future()
        self._loop, self._reported, self._expected = loop, 0, -1

    def report(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """One record's fate."""
        if error is not None:
            self.failures.append((error, message))
        self._reported += 1
        if self._reported == self._expected:
            self._loop.call_soon_threadsafe(self._finish)

    def expect(self, count: int) -> None:
        """All are handed in; the last report may have come already."""
        self._expected = count
        if self._reported == count:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class KafkaProducer:
    """See `choreo.log.port.Producer`.

    Args:
        settings: of the librdkafka producer.
        who: the principal, for error messages.
        limit_of: asks for a topic's `max.message.bytes`, blocking; None if the log does not tell.
    """

    def __init__(self, settings: dict[str, Any], who: str, limit_of: Callable[[str], int | None]) -> None:
        self._settings, self._who, self._limit_of = settings, who, limit_of
        self._transactional = "transactional.id" in settings
        self._name = f"producer {settings.get('transactional.id', settings['client.id'])!r}"
        self._client: _Client | None = _Client(settings)
        self._ready = False  # for transactions
        self._fenced: NotOwnerError | None = None
        self._executor = ThreadPoolExecutor(1, "choreo producer")  # one: transactions take their turn
        self._closed = False

    def _live(self) -> _Client:
        """The client; a new one if the last has failed for good, which only ever ends one client."""
        if self._closed:
            raise LogError(f"{self._name} is closed", remedy="make a new one")
        if self._client is None or self._client.fatal:
            self._discard()
            self._client = _Client(self._settings)
        return self._client

    def _discard(self) -> None:
        if self._client is not None:
            self._client.stop()
        self._client, self._ready = None, False

    async def append(self, records: Sequence[NewRecord]) -> None:
        """Append all; returns when every record is acknowledged."""
        if self._transactional:
            return await self.append_atomically(records)
        failures = await self._append(records)
        if not failures:
            return None
        reason = await self._in_thread(lambda: self._explained(failures))
        if reason is not None:
            raise reason
        # Small records, but together more than the topic takes at once: one by one they fit.
        for record in records:
            if failures := await self._append([record]):
                raise await self._in_thread(lambda: self._explained(failures)) or LogUnavailableError(self._name)
        return None

    async def _append(self, records: Sequence[NewRecord]) -> list[_Failure]:
        producer = self._live().producer
        delivery = _Delivery(asyncio.get_running_loop())
        index, deadline = 0, time.monotonic() + PATIENCE
        while index < len(records):
            try:
                for index in range(index, len(records)):  # noqa: B020 - goes on where the queue was full
                    _send(producer, records[index], delivery.report)
                index = len(records)
            except BufferError:
                if time.monotonic() > deadline:
                    raise LogUnavailableError(
                        f"{self._name} has a full queue", remedy="is a broker down? repeat"
                    ) from None
                await asyncio.sleep(0.005)
            except ck.KafkaException as error:
                raise self._refused(error.args[0], records[index]) from error
        delivery.expect(len(records))
        await delivery.done
        return delivery.failures

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        offsets: Mapping[TopicPartition, int] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        """One transaction; all of it or nothing."""
        if not self._transactional:
            raise ConfigurationError(f"{self._name} cannot append atomically", remedy="give it a transactional_id")
        metadata = None
        if offsets:
            if not isinstance(consumer, KafkaConsumer):
                raise ConfigurationError("offsets are committed for a consumer of the same log", remedy="name it")
            if offsets.keys() - consumer.assignment:
                raise NotOwnerError(f"{self._name} commits partitions its consumer does not own any more")
            metadata = await consumer.group_metadata()
        await self._in_thread(lambda: self._transact(records, offsets or {}, metadata))

    async def close(self) -> None:
        """Wait for what is under way (half a minute at most), then free everything."""
        self._closed = True
        client = self._client
        self._executor.shutdown(wait=False)
        if client is not None:
            client.stop()
            await asyncio.shield(asyncio.wrap_future(client.ended))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # --- transactions, in the executor's thread -------------------------------------------------------------------

    def _transact(self, records: Sequence[NewRecord], offsets: Mapping[TopicPartition, int], metadata: Any) -> None:
        if self._fenced is not None:
            raise self._fenced
        producer = self._live().producer
        failures: list[_Failure] = []
        deadline = time.monotonic() + PATIENCE

        def report(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is not None:
                failures.append((error, message))

        try:
            if not self._ready:
                _repeat(producer.init_transactions, deadline)
                self._ready = True
            producer.begin_transaction()
            for record in records:
                _send_patiently(
                    producer, record, lambda error, message: error and failures.append((error, message)), deadline
                )
            if offsets:
                wanted = [ck.TopicPartition(*partition, offset) for partition, offset in offsets.items()]
                _repeat(lambda left: producer.send_offsets_to_transaction(wanted, metadata, left), deadline)
            _repeat(producer.commit_transaction, deadline)
        except (ck.KafkaException, BufferError) as error:
            reason = self._undone(producer, error, failures)
            raise reason from error

    def _undone(self, producer: ck.Producer, error: Exception, failures: list[_Failure]) -> Exception:
        """Abort; the reason why."""
        if isinstance(error, BufferError):
            reason: Exception = LogUnavailableError(f"{self._name} has a full queue", remedy="is a broker down? repeat")
        else:
            reason = explained(error.args[0], self._name, self._who)
            if isinstance(reason, NotOwnerError) and error.args[0].fatal():
                self._fenced = reason
                return reason
        try:
            _repeat(producer.abort_transaction, time.monotonic() + PATIENCE)
        except ck.KafkaException:
            self._discard()  # the next one of the same id has the broker end this transaction
        return self._explained(failures) or reason if failures else reason

    # --- errors ---------------------------------------------------------------------------------------------------

    def _explained(self, failures: Sequence[_Failure]) -> Exception | None:
        """Why records failed; None if each is small enough and only their batch was too large."""
        largest = max((message for error, message in failures if error.code() in TOO_LARGE), key=_size, default=None)
        if largest is None:
            error, message = failures[0]
            return explained(error, f"append to {message.topic()}", self._who)
        topic = str(largest.topic())
        limit = self._limit_of(topic)
        if limit is not None and _size(largest) <= limit and len(failures) > 1:
            return None
        return _too_large(topic, largest.key(), _size(largest), limit)

    def _refused(self, error: ck.KafkaError, record: NewRecord) -> LogError:
        """Why the client did not even take a record."""
        if error.code() in TOO_LARGE:
            size = len(record.key or b"") + len(record.value or b"")
            return _too_large(record.topic, record.key, size, int(self._settings["message.max.bytes"]))
        return explained(error, f"append to {record.topic}", self._who)


def _send(producer: ck.Producer, record: NewRecord, report: Callable[[Any, Any], None]) -> None:
    topic, key, value, headers, timestamp, partition = record
    where = -1 if partition is None else partition
    # The client's own type of headers is wider than the port's, and lists are invariant.
    headers_: Any = headers
    producer.produce(topic, value, key, where, headers=headers_, on_delivery=report, timestamp=timestamp or 0)


def _send_patiently(
    producer: ck.Producer, record: NewRecord, report: Callable[[Any, Any], None], deadline: float
) -> None:
    while True:
        try:
            return _send(producer, record, report)
        except BufferError:
            if time.monotonic() > deadline:
                raise
            producer.poll(0.05)


def _repeat(step: Callable[[float], None], deadline: float) -> None:
    """A transaction's step, repeated while the broker says so."""
    while True:
        try:
            return step(max(1.0, deadline - time.monotonic()))
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _size(message: ck.Message) -> int:
    return len(message.key() or b"") + len(message.value() or b"")


def _too_large(topic: str, key: bytes | None, size: int, limit: int | None) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"record {key!r} of {size} bytes cannot be appended to topic {topic}",
        why=f"its limit is {limit} bytes" if limit is not None else "it is over the topic's limit",
        remedy=f"raise max.message.bytes of {topic}, or make the event smaller",
    )

"""The producers: idempotent, every record acknowledged; or transactional, records and offsets both or neither."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, NotOwnerError, RecordTooLargeError
from choreo.log.kafka import telemetry
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import TOO_LARGE, explained
from choreo.log.kafka.rights import Right
from choreo.log.port import Consumer, NewRecord, Position, TopicPartition

PATIENCE = 30.0  # seconds that a full queue or a close may take
_REBALANCE_WAIT = 5.0
# Kafka ends a transaction after this time (seconds), and lets nobody read past it, nor the next owner begin, till then.
_TRANSACTION_WAIT = 15
_ABORT_WAIT = 5.0
SILENCE = 60.0
"""Seconds without a single answer, though records are under way, after which a client is given up: it may have lost its
brokers for good (docs/decisions/0011)."""
_TRANSACTIONAL = {
    "transaction.timeout.ms": _TRANSACTION_WAIT * 1_000,
    "delivery.timeout.ms": _TRANSACTION_WAIT * 1_000,
}

_PURGED = {ck.KafkaError._PURGE_QUEUE, ck.KafkaError._PURGE_INFLIGHT}  # noqa: SLF001 - librdkafka's own codes

Report = Callable[[ck.KafkaError | None, ck.Message], None]


class Failure(NamedTuple):
    """A record that was not appended; `size` in bytes, of key and value."""

    error: ck.KafkaError
    topic: str
    key: bytes | None
    size: int


class Client:
    """A librdkafka producer and the thread that polls it for acknowledgements.

    Args:
        outage: tells of passing trouble, once for all clients of a producer.
        patience: seconds that what is under way gets when it is stopped.

    Attributes:
        fatal: the error that ends it; what is under way then is thrown away.
        stopping: whether it only ends what is under way.
    """

    def __init__(self, settings: dict[str, Any], outage: telemetry.Outage, patience: float = PATIENCE) -> None:
        self.fatal: ck.KafkaError | None = None
        self.ended: Future[None] = Future()
        self._patience = patience
        # What librdkafka gives up by itself, it gives up before.
        self._silence = SILENCE + float(settings.get("delivery.timeout.ms", 0)) / 1_000
        self.stopping = False
        self.producer = ck.Producer(telemetry.callbacks(settings, outage.seen))
        threading.Thread(target=self._run, name="choreo producer", daemon=True).start()

    def _run(self) -> None:
        heard = time.monotonic()
        try:
            while not self.stopping and self.fatal is None:
                if self.producer.poll(0.1) or not len(self.producer):
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._silence:
                    self.fatal = ck.KafkaError(ck.KafkaError._TIMED_OUT, f"no answer for {self._silence:.0f} s")  # noqa: SLF001
            if self.fatal is None:
                self.producer.flush(self._patience)
        except ck.KafkaException as error:  # the client is of no use any more, rightly or wrongly
            self.fatal = error.args[0]
        finally:
            self._tell_the_rest()
            self.ended.set_result(None)

    def _tell_the_rest(self) -> None:
        """Tell whoever still waits that it failed, at once; an error of the client may break a report off, not those after it."""
        deadline = time.monotonic() + 5
        with contextlib.suppress(ck.KafkaException):
            self.producer.purge()
        while len(self.producer) and time.monotonic() < deadline:
            with contextlib.suppress(ck.KafkaException, SystemError):  # the latter is how the binding passes it on
                self.producer.flush(1)

    def stop(self) -> None:
        """Begin to end; `ended` tells when."""
        self.stopping = True


class _Delivery:
    """The acknowledgements of one append; `report` is called by the polling thread alone."""

    def __init__(self, client: Client, *, gapless: bool) -> None:
        self.failures: list[Failure] = []
        self._client, self._gapless = client, gapless
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._reported, self._expected = 0, -1

    def report(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """What became of one record."""
        if error is None and self._gapless and message.offset() is None:
            # librdkafka takes a record for appended when one after it is, though it was refused.
            error = ck.KafkaError(ck.KafkaError._TIMED_OUT, "the log does not say where it lies")  # noqa: SLF001
        if error is not None:
            self.fail(failed(error, message))
        self._reported += 1
        if self._reported == self._expected:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._finish)

    def fail(self, failure: Failure) -> None:
        """A record is not appended; where nothing may be left out, nothing is appended after it."""
        self.failures.append(failure)
        if self._gapless:
            self._client.fatal = self._client.fatal or failure.error
        elif failure.error.code() == ck.KafkaError._MSG_TIMED_OUT:  # noqa: SLF001 - librdkafka's own code
            self._client.stop()  # it may have lost its brokers for good

    async def of(self, count: int) -> None:
        """Wait until `count` records are reported."""
        self._expected = count
        if self._reported == count:  # the last report came before it was known to be the last
            self._finish()
        await self._done

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class KafkaProducer:
    """Implements `choreo.log.port.Producer`.

    Args:
        settings: of the librdkafka producer.
        who: the principal, for error messages.
        limit_of: asks for a topic's `max.message.bytes`, blocking; None if the log does not tell.
    """

    gapless = False

    def __init__(self, settings: dict[str, Any], who: str, limit_of: Callable[[str], int | None]) -> None:
        self.settings, self.who = settings, who
        self._limit_of = limit_of
        self._outage = telemetry.Outage(f"producer {settings['client.id']}")
        self._client = Client(settings, self._outage, 0 if self.gapless else PATIENCE)
        self._closed = False
        self._turn = asyncio.Lock()

    @property
    def ended(self) -> bool:
        """Whether it is closed and its thread gone."""
        return self._closed and self._client.ended.done()

    def check_open(self) -> None:
        """Refuse what is begun after `close`."""
        if self._closed:
            raise LogError("the producer is closed", remedy="make a new one")

    def live(self) -> Client:
        """The client; a new one after an error that only ends a client."""
        if self._client.fatal is not None or self._client.stopping:
            self._client.stop()
            self._client = Client(self.settings, self._outage)
        return self._client

    async def append(self, records: Sequence[NewRecord]) -> None:
        failures = await self._append(records)
        if len(records) > 1 and any(failure.error.code() in TOO_LARGE for failure in failures):
            for record in records:  # if only their batch was too large they fit one by one; else one names itself
                await self.append([record])
        elif failures:
            raise await asyncio.to_thread(self.explained, failures)

    async def _append(self, records: Sequence[NewRecord]) -> list[Failure]:
        async with self._turn:  # appends that overlap enter the client's queue one after the other
            self.check_open()
            client, sent, deadline = self.live(), 0, time.monotonic() + PATIENCE
            delivery = _Delivery(client, gapless=self.gapless)
            for record in records:
                while (refusal := send(client.producer, record, delivery.report)) is FULL:
                    if self._closed or client.fatal or (time.monotonic() > deadline and not self.gapless):
                        break
                    await asyncio.sleep(0.005)
                if refusal is not None:
                    delivery.fail(refusal)
                    break
                sent += 1
        if client.fatal is None:  # else nobody may be left who would report
            await delivery.of(sent)
        elif not delivery.failures:
            delivery.fail(Failure(client.fatal, records[0].topic, None, 0))
        return delivery.failures

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        positions: Mapping[TopicPartition, Position] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        del records, positions, consumer
        raise ConfigurationError("this producer cannot append atomically", remedy="give it a transactional_id")

    async def close(self) -> None:
        """Wait for what is under way, half a minute at most, then free everything; goes on if the caller is cancelled."""
        if not self._closed:
            self._closed = True
            self.stop()
        await asyncio.shield(asyncio.wrap_future(self._client.ended))

    def stop(self) -> None:
        """Begin to end."""
        self._client.stop()

    def _rights(self, *topics: str) -> list[Right]:
        transaction = self.settings.get("transactional.id", "")
        return [Right("Write", "transactional-id", transaction), *(Right("Write", "topic", name) for name in topics)]

    def explained(self, failures: Sequence[Failure]) -> LogError:
        """Why records failed. Blocking.

        What is fatal for a client need not be for the next one: that word is left out.
        """
        too_large = [failure for failure in failures if failure.error.code() in TOO_LARGE]
        if not too_large:
            failure = failures[0]
            error = self._client.fatal or failure.error
            what, rights = f"append to {failure.topic}", self._rights(failure.topic)
            return explained(ck.KafkaError(error.code(), error.str()), what, self.who, *rights)
        _, topic, key, size = max(too_large, key=lambda failure: failure.size)
        limit = self._limit_of(topic)
        return RecordTooLargeError(
            f"a record of {size:,} bytes (key {key!r}) is too large for topic {topic}",
            why="its max.message.bytes is " + (f"{limit:,}" if limit is not None else "less"),
            remedy="send a reference to the data instead of the data, or raise max.message.bytes on the topic",
        )


class GaplessProducer(KafkaProducer):
    """A producer that the first failure breaks: the client stops there, and throws away what it has not sent."""

    gapless = True

    def __init__(self, settings: dict[str, Any], *arguments: Any) -> None:
        # No record is given up for lack of time, and none is sent once one before it has failed. Nor beside one that has
        # no answer: a broker that does not know the producer takes any first request, also the second one.
        own = {"delivery.timeout.ms": 0, "enable.gapless.guarantee": "true", "max.in.flight": 1}
        super().__init__(settings | own, *arguments)

    def live(self) -> Client:
        if self._client.fatal is not None:
            why = self._client.fatal.str()
            raise LogUnavailableError("this producer is broken", why=why, remedy="repeat with a new one")
        return self._client

    async def append(self, records: Sequence[NewRecord]) -> None:
        if failures := await self._append(records):
            causes = [failure for failure in failures if failure.error.code() not in _PURGED]
            if not causes:
                self.live()  # says what the cause was
            raise await asyncio.to_thread(self.explained, causes)


class TransactionalProducer(KafkaProducer):
    """A producer with a transactional id; all its appends are atomic, and done one after the other by its thread."""

    def __init__(self, settings: dict[str, Any], *arguments: Any) -> None:
        super().__init__(settings | _TRANSACTIONAL, *arguments)
        self._ready: Client | None = None  # the client that has its transactional id registered
        self._fenced: NotOwnerError | None = None
        self._thread = ThreadPoolExecutor(1, "choreo transactions")

    async def append(self, records: Sequence[NewRecord]) -> None:
        await self.append_atomically(records)

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        positions: Mapping[TopicPartition, Position] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        wanted = [ck.TopicPartition(*partition, *position) for partition, position in (positions or {}).items()]
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + _REBALANCE_WAIT
        while True:
            group = None
            if positions:
                if not isinstance(consumer, KafkaConsumer):
                    raise ConfigurationError("positions are committed for no consumer", remedy="name one of the log")
                group = await consumer.group_metadata(positions)
            self.check_open()
            try:
                return await loop.run_in_executor(self._thread, self._transact, records, wanted, group)
            except NotOwnerError:  # the group may only have moved on since it was asked: it says what is still ours
                if self._fenced is not None or not positions or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        self._thread.submit(super().stop)  # after what has been begun
        self._thread.shutdown(wait=False)

    def _transact(self, records: Sequence[NewRecord], offsets: list[ck.TopicPartition], group: Any) -> None:
        if self._fenced is not None:
            raise self._fenced
        client, failures, deadline = self.live(), list[Failure](), time.monotonic() + _TRANSACTION_WAIT
        producer = client.producer

        def report(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is not None:
                failures.append(failed(error, message))

        try:
            if self._ready is not client:
                _repeat(producer.init_transactions, deadline)
                self._ready = client
            producer.begin_transaction()
            for record in records:
                while (refusal := send(producer, record, report)) is FULL and time.monotonic() < deadline:
                    time.sleep(0.005)
                if refusal is not None:
                    failures.append(refusal)
                    raise ck.KafkaException(refusal.error)
            if offsets:
                _repeat(lambda left: producer.send_offsets_to_transaction(offsets, group, left), deadline)
            _repeat(producer.commit_transaction, deadline)
        except ck.KafkaException as error:
            raise self._undone(client, error.args[0], failures) from error

    def _undone(self, client: Client, error: ck.KafkaError, failures: list[Failure]) -> LogError:
        """Abort; the reason why."""
        reason = explained(error, f"transaction of {self.settings['transactional.id']!r}", self.who, *self._rights())
        if isinstance(reason, NotOwnerError) and error.fatal():
            self._fenced = reason
            return reason
        try:
            _repeat(client.producer.abort_transaction, time.monotonic() + _ABORT_WAIT)
        except ck.KafkaException as trouble:
            client.fatal = trouble.args[0]  # a new client of the same id has the broker end this transaction
        return self.explained(failures) if failures else reason


FULL = Failure(ck.KafkaError(ck.KafkaError._QUEUE_FULL, "the producer's queue stays full"), "", None, 0)  # noqa: SLF001


def send(producer: ck.Producer, record: NewRecord, report: Report) -> Failure | None:
    """Hand one record to the client's queue; why it was not taken: FULL, which passes, or for good."""
    topic, key, value, headers, timestamp, partition = record
    where = -1 if partition is None else partition
    wide: Any = headers  # the client's type allows more, and lists are invariant
    try:
        producer.produce(topic, value, key, where, headers=wide, on_delivery=report, timestamp=timestamp or 0)
    except BufferError:
        return FULL
    except ck.KafkaException as error:
        return Failure(error.args[0], topic, key, len(key or b"") + len(value or b""))
    return None


def failed(error: ck.KafkaError, message: ck.Message) -> Failure:
    """What a delivery report says."""
    key = message.key()
    return Failure(error, str(message.topic()), key, len(key or b"") + len(message.value() or b""))


def _repeat(step: Callable[[float], None], deadline: float) -> None:
    """A step of a transaction, taken again while the client says so."""
    while True:
        try:
            return step(max(1.0, deadline - time.monotonic()))
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)

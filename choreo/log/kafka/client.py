"""librdkafka's producers: each with a thread that hears what became of its records."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import confluent_kafka as ck

from choreo.log.kafka import telemetry
from choreo.log.port import NewRecord

PATIENCE = 30.0  # seconds that a full queue or a close may take
SILENCE = 60.0
"""Seconds without a single answer, though records are under way, after which a client is given up: it may have lost its
brokers for good (docs/decisions/0011)."""

PURGED = {ck.KafkaError._PURGE_QUEUE, ck.KafkaError._PURGE_INFLIGHT}  # noqa: SLF001 - librdkafka's own codes
ENDED = ck.KafkaError(ck.KafkaError._DESTROY, "the client is closed")  # noqa: SLF001 - librdkafka's own code
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
        waiting: what waits for reports; whoever is left when the thread ends is told that there will be none.
    """

    def __init__(self, settings: dict[str, Any], outage: telemetry.Outage, patience: float = PATIENCE) -> None:
        self.fatal: ck.KafkaError | None = None
        self.ended: Future[None] = Future()
        self._patience = patience
        # What librdkafka gives up by itself, it gives up before.
        self._silence = SILENCE + float(settings.get("delivery.timeout.ms", 0)) / 1_000
        self.stopping = False
        self.waiting: set[Delivery] = set()
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
            for delivery in list(self.waiting):
                delivery.give_up()

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


class Delivery:
    """The acknowledgements of one append; `report` is called by the polling thread alone.

    Attributes:
        sent: how many records were handed to the client; `report` will be called so often.
        partition: where the record lies that was reported last.
    """

    def __init__(self, client: Client, *, gapless: bool) -> None:
        self.failures: list[Failure] = []
        self.sent = 0
        self.partition: int | None = None
        self._client, self._gapless = client, gapless
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._reported, self._expected = 0, -1

    def report(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """What became of one record."""
        if (failure := failed(error, message)) is not None:
            self.fail(failure)
        self.partition = message.partition()
        self._reported += 1
        if self._reported == self._expected:
            self._tell()

    def fail(self, failure: Failure) -> None:
        """A record is not appended; where nothing may be left out, nothing is appended after it."""
        self.failures.append(failure)
        if self._gapless:
            self._client.fatal = self._client.fatal or failure.error
        elif failure.error.code() == ck.KafkaError._MSG_TIMED_OUT:  # noqa: SLF001 - librdkafka's own code
            self._client.stop()  # it may have lost its brokers for good

    async def all(self) -> None:
        """Wait until all that was sent is reported, or its client has ended."""
        self._expected = self.sent
        self._client.waiting.add(self)
        try:
            if self._reported == self._expected:  # the last report came before it was known to be the last
                self._finish()
            elif self._client.ended.done():
                self.give_up()
            await self._done
        finally:
            self._client.waiting.discard(self)

    def give_up(self) -> None:
        """Nobody is left who would report the rest, if there is one."""
        if self._reported != self._expected:
            self.fail(Failure(self._client.fatal or ENDED, "the log", None, 0))
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


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


def failed(error: ck.KafkaError | None, message: ck.Message) -> Failure | None:
    """What a delivery report says; None if the record is appended."""
    if error is None:
        if message.offset() is not None:
            return None
        # librdkafka takes a record for appended when one after it is, though the log may have refused it.
        error = ck.KafkaError(ck.KafkaError._TIMED_OUT, "the log does not say where the record lies")  # noqa: SLF001
    key = message.key()
    return Failure(error, str(message.topic()), key, len(key or b"") + len(message.value() or b""))

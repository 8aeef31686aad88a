"""The transactional producer: records and offsets both or neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, NotOwnerError
from choreo.log.kafka.client import FULL, PURGED, Client, Failure, failed, send
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import explained
from choreo.log.kafka.producer import KafkaProducer
from choreo.log.port import Consumer, NewRecord, Position, TopicPartition

_REBALANCE_WAIT = 5.0
# Kafka ends a transaction after this time (seconds), and lets nobody read past it, nor the next owner begin, till then.
_TRANSACTION_WAIT = 15
_ABORT_WAIT = 5.0
_TRANSACTIONAL = {
    "transaction.timeout.ms": _TRANSACTION_WAIT * 1_000,
    "delivery.timeout.ms": _TRANSACTION_WAIT * 1_000,
}


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
            if (failure := failed(error, message)) is not None:
                failures.append(failure)

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
            self._flush(producer, failures, deadline)
            _repeat(producer.commit_transaction, deadline)
        except (ck.KafkaException, SystemError) as error:
            raise self._undone(client, _cause(error), failures) from error

    def _flush(self, producer: ck.Producer, failures: list[Failure], deadline: float) -> None:
        """Wait for all acknowledgements: a record that only the client takes for appended would be left out."""
        if producer.flush(max(1.0, deadline - time.monotonic())):
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT, "records are not acknowledged"))  # noqa: SLF001
        for failure in _causes(failures):  # of what was only thrown away the commit names the cause
            raise ck.KafkaException(failure.error)

    def _undone(self, client: Client, error: ck.KafkaError, failures: list[Failure]) -> LogError:
        """Abort; the reason why."""
        reason = self._reason(error)
        if self._fenced is not None:
            return reason
        try:
            _repeat(client.producer.abort_transaction, time.monotonic() + _ABORT_WAIT)
        except (ck.KafkaException, SystemError) as trouble:
            client.fatal = _cause(trouble)  # a new client of the same id has the broker end this transaction
            verdict = self._reason(client.fatal)
            if self._fenced is not None:
                return verdict
        causes = _causes(failures)
        return self.explained(causes) if causes else reason

    def _reason(self, error: ck.KafkaError) -> LogError:
        """What an error means; a fatal one that says so fences this producer for good."""
        reason = explained(error, f"transaction of {self.settings['transactional.id']!r}", self.who, *self._rights())
        if isinstance(reason, NotOwnerError) and error.fatal():
            self._fenced = reason
        return reason


def _causes(failures: list[Failure]) -> list[Failure]:
    return [failure for failure in failures if failure.error.code() not in PURGED]


def _cause(error: ck.KafkaException | SystemError) -> ck.KafkaError:
    """What the client said; the binding makes a SystemError of it if a report was due at the same time."""
    told = error if isinstance(error, ck.KafkaException) else error.__cause__
    if isinstance(told, ck.KafkaException):
        return told.args[0]  # type: ignore[no-any-return]
    return ck.KafkaError(ck.KafkaError._FAIL, str(error))  # noqa: SLF001


def _repeat(step: Callable[[float], None], deadline: float) -> None:
    """A step of a transaction, taken again while the client says so."""
    while True:
        try:
            return step(max(1.0, deadline - time.monotonic()))
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)

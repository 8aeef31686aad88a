"""The transactional producer: records and a consumer's offsets, both or neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, NotOwnerError
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import explained
from choreo.log.kafka.producer import FULL, PATIENCE, Client, Failure, KafkaProducer, failed, send
from choreo.log.port import Consumer, NewRecord, TopicPartition

_ABORT_WAIT = 10.0


class TransactionalProducer(KafkaProducer):
    """A producer with a transactional id; all its appends are atomic, and done one after the other by its thread."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ready: Client | None = None  # the client that has its transactional id registered
        self._fenced: NotOwnerError | None = None
        self._thread = ThreadPoolExecutor(1, "choreo transactions")

    async def append(self, records: Sequence[NewRecord]) -> None:
        await self.append_atomically(records)

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        offsets: Mapping[TopicPartition, int] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        group = None
        if offsets:
            if not isinstance(consumer, KafkaConsumer):
                raise ConfigurationError("offsets are committed for no consumer", remedy="name one of the same log")
            group = await consumer.group_metadata(offsets)
        wanted = [ck.TopicPartition(*partition, offset) for partition, offset in (offsets or {}).items()]
        self.live()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, records, wanted, group)

    def stop(self) -> None:
        self._thread.submit(self._client.stop)  # after the transaction under way
        self._thread.shutdown(wait=False)

    def _transact(self, records: Sequence[NewRecord], offsets: list[ck.TopicPartition], group: Any) -> None:
        if self._fenced is not None:
            raise self._fenced
        client, failures = self.live(), list[Failure]()
        try:
            self._run(client, records, failures, offsets, group)
        except ck.KafkaException as error:
            raise self._undone(client, error.args[0], failures) from error

    def _run(
        self,
        client: Client,
        records: Sequence[NewRecord],
        failures: list[Failure],
        offsets: list[ck.TopicPartition],
        group: Any,
    ) -> None:
        producer, deadline = client.producer, time.monotonic() + PATIENCE

        def report(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is not None:
                failures.append(failed(error, message))

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

    def _undone(self, client: Client, error: ck.KafkaError, failures: list[Failure]) -> LogError:
        """Abort; the reason why."""
        reason = explained(error, f"transaction of {self.settings['transactional.id']!r}", self.who)
        if isinstance(reason, NotOwnerError) and error.fatal():
            self._fenced = reason
            return reason
        try:
            _repeat(client.producer.abort_transaction, time.monotonic() + _ABORT_WAIT)
        except ck.KafkaException as trouble:
            client.fatal = trouble.args[0]  # a new client of the same id has the broker end this transaction
        return self.explained(failures) if failures else reason


def _repeat(step: Callable[[float], None], deadline: float) -> None:
    """A step of a transaction, taken again while the client says so."""
    while True:
        try:
            return step(max(1.0, deadline - time.monotonic()))
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)

"""The producers: idempotent, every record acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, RecordTooLargeError
from choreo.log.kafka import telemetry
from choreo.log.kafka.client import ENDED, FULL, PATIENCE, PURGED, Client, Delivery, Failure, send
from choreo.log.kafka.errors import TOO_LARGE, explained
from choreo.log.kafka.rights import Right
from choreo.log.partitioning import partition_for
from choreo.log.port import Consumer, NewRecord, Position, TopicPartition

_METADATA_WAIT = 2.0  # seconds that a question for a topic's partitions may take
_FORGET = 300.0  # seconds after which all partitions are strange again: topics grow, and brokers forget


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
            client = self.live()
            delivery = Delivery(client, gapless=self.gapless)
            await self._enter(records, client, delivery)
        await delivery.all()
        return delivery.failures

    async def _enter(self, records: Sequence[NewRecord], client: Client, delivery: Delivery) -> None:
        """Hand records to the client until it refuses one, or ends."""
        deadline = time.monotonic() + PATIENCE
        for record in records:
            if client.stopping or client.fatal is not None:
                delivery.fail(Failure(client.fatal or ENDED, record.topic, None, 0))
                break
            while (refusal := send(client.producer, record, delivery.report)) is FULL:
                if self._closed or client.fatal or (time.monotonic() > deadline and not self.gapless):
                    break
                await asyncio.sleep(0.005)
            if refusal is not None:
                delivery.fail(refusal)
                break
            delivery.sent += 1

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
    """A producer that the first failure breaks: the client stops there, and throws away what it has not sent.

    A broker that does not know a producer takes any first request of it, also the second one when it has refused the
    first (docs/decisions/0011). So nothing follows the first record for a partition before it is acknowledged.
    """

    gapless = True

    def __init__(self, settings: dict[str, Any], *arguments: Any) -> None:
        # No record is given up for lack of time, and none is sent once one before it has failed.
        super().__init__(settings | {"delivery.timeout.ms": 0, "enable.gapless.guarantee": "true"}, *arguments)
        self._topics: dict[str, _Topic] = {}
        self._forget_at = 0.0

    def live(self) -> Client:
        if self._client.fatal is not None:
            why = self._client.fatal.str()
            raise LogUnavailableError("this producer is broken", why=why, remedy="repeat with a new one")
        return self._client

    async def append(self, records: Sequence[NewRecord]) -> None:
        try:
            failures = await self._append(records)
        except asyncio.CancelledError:
            cancelled = ck.KafkaError(ck.KafkaError._FAIL, "an append was cancelled, perhaps in its midst")  # noqa: SLF001
            self._client.fatal = self._client.fatal or cancelled
            raise
        if failures:
            causes = [failure for failure in failures if failure.error.code() not in PURGED]
            if not causes:
                self.live()  # says what the cause was
            raise await asyncio.to_thread(self.explained, causes)

    async def _enter(self, records: Sequence[NewRecord], client: Client, delivery: Delivery) -> None:
        if time.monotonic() > self._forget_at:
            self._topics.clear()
            self._forget_at = time.monotonic() + _FORGET
        begin = 0
        for place, record in enumerate(records):
            known = self._topics.get(record.topic)
            if known is None or (known.strange and known.may_be_first(record)):
                await super()._enter(records[begin:place], client, delivery)
                begin = place + 1
                if delivery.failures:
                    return
                delivery.failures += await self._introduce(record, client)
                if delivery.failures:
                    return
        await super()._enter(records[begin:], client, delivery)

    async def _introduce(self, record: NewRecord, client: Client) -> list[Failure]:
        """Append a record alone, since its partition may not know this producer."""
        if record.topic not in self._topics:
            with contextlib.suppress(ck.KafkaException):  # else the next record asks again
                self._topics[record.topic] = await asyncio.to_thread(_topic, client, record.topic)
        first = Delivery(client, gapless=True)
        await super()._enter([record], client, first)
        await first.all()
        if not first.failures and record.topic in self._topics:
            self._topics[record.topic].strange.discard(first.partition)
        return first.failures


@dataclass
class _Topic:
    """What a gapless producer knows of a topic: how many partitions it has, and which have acknowledged nothing yet."""

    partitions: int
    strange: set[int | None]

    def may_be_first(self, record: NewRecord) -> bool:
        """Whether a record may be the first one for its partition."""
        if record.partition is not None:
            return record.partition in self.strange
        return not record.key or partition_for(record.key, self.partitions) in self.strange


def _topic(client: Client, name: str) -> _Topic:
    known = client.producer.list_topics(name, _METADATA_WAIT).topics[name]
    if known.error is not None:
        raise ck.KafkaException(known.error)
    return _Topic(len(known.partitions), set(known.partitions))

"""Kafka as a log: its address, topics and offsets."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec  # type: ignore[attr-defined] # public

from choreo.errors import ConfigurationError, LogUnavailableError, UnknownTopicError
from choreo.log.kafka import telemetry
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import as_choreo, explained
from choreo.log.kafka.owner import GRACE, Owner
from choreo.log.kafka.partitions import ours, theirs
from choreo.log.kafka.producer import KafkaProducer
from choreo.log.kafka.settings import for_admin, for_consumer, for_producer, parse, principal
from choreo.log.kafka.transactions import TransactionalProducer
from choreo.log.port import Capabilities, Listener, Start, Topic, TopicPartition

T = TypeVar("T")

CONNECT_WAIT = 10.0
REQUEST_WAIT = 15.0
_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call] # theirs is untyped
_INTERNAL = {"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"}


class KafkaLog:
    """See `choreo.log.port.Log`."""

    capabilities = Capabilities(
        durable=True,
        several_processes=True,
        transactions=True,
        topic_creation=True,
        retention=True,
        group_protocols=("classic", "consumer"),
    )

    def __init__(self, hosts: str, settings: Mapping[str, str]) -> None:
        self._hosts, self._settings = hosts, settings
        self._who = principal(settings)
        self._trouble: ck.KafkaError | None = None
        self._opened: list[KafkaConsumer | KafkaProducer] = []
        self._executor = ThreadPoolExecutor(2, "choreo kafka")

    @classmethod
    def at(cls, url: str, client_settings: Mapping[str, str]) -> KafkaLog:
        """The log at `kafka://host:9092,host:9092?setting=value`, not connected yet.

        Raises:
            ConfigurationError: the address or a setting cannot work.
        """
        return cls(*parse(url, client_settings))

    @property
    def url(self) -> str:
        """The brokers' addresses; no settings, since some are secret."""
        return f"kafka://{self._hosts}"

    async def __aenter__(self) -> Self:
        """Connect, or say within about 10 seconds why not."""
        conf = for_admin(self._hosts, self._settings)
        self._admin = _made(lambda: AdminClient(telemetry.callbacks(conf, self._on_error)))
        await self._blocking(self._connect)
        return self

    def _connect(self) -> None:
        deadline = time.monotonic() + CONNECT_WAIT
        what = f"no Kafka broker answers at {self._hosts}"
        while True:
            try:
                self._admin.list_topics(timeout=0.5)
                return
            except ck.KafkaException as error:
                self._admin.poll(0)
                trouble = self._trouble or error.args[0]
                reason = explained(trouble, what, self._who)
                if not isinstance(reason, LogUnavailableError):
                    raise reason from error
                if time.monotonic() > deadline:
                    remedy = "start it, or correct CHOREO_LOG and the client settings"
                    raise LogUnavailableError(what, why=trouble.str(), remedy=remedy) from error

    async def __aexit__(self, *exc: object) -> None:
        """Close every consumer and producer made here."""
        await asyncio.gather(*(opened.close() for opened in self._opened))
        self._executor.shutdown(wait=False)

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's code, which names no reason
            self._trouble = error

    # --- topics ---------------------------------------------------------------------------------------------------

    async def topics(self) -> dict[str, Topic]:
        """The topics that exist, their settings left out."""
        known = (await self._blocking(lambda: self._admin.list_topics(timeout=REQUEST_WAIT))).topics
        return {name: _topic(name, found) for name, found in known.items() if name not in _INTERNAL}

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """Create those that do not exist; they can be used at once."""
        existing = await self.topics()
        missing = [
            NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.settings))
            for topic in {topic.name: topic for topic in topics}.values()
            if topic.name not in existing
        ]
        created = await self._blocking(lambda: self._create(missing)) if missing else []
        await self._blocking(lambda: self._wait_for(set(created)))
        return created

    def _wait_for(self, topics: set[str]) -> None:
        deadline = time.monotonic() + REQUEST_WAIT
        while topics - self._admin.list_topics(timeout=REQUEST_WAIT).topics.keys() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _create(self, topics: list[NewTopic]) -> list[str]:
        created = []
        for name, future in self._admin.create_topics(topics, request_timeout=REQUEST_WAIT).items():
            try:
                future.result()
                created.append(name)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise explained(error.args[0], f"topic {name} cannot be created", self._who) from error
        return created

    def _limit_of(self, topic: str) -> int | None:
        """A topic's `max.message.bytes`, asked for when a record is refused for its size. Blocking."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            answer = self._admin.describe_configs([resource], request_timeout=REQUEST_WAIT)[resource]
            return int(answer.result()["max.message.bytes"].value)
        except (ck.KafkaException, KeyError):
            return None

    # --- offsets --------------------------------------------------------------------------------------------------

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset still kept."""
        return await self._blocking(lambda: self._offsets(partitions, _EARLIEST))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offset."""
        return await self._blocking(lambda: self._ends(partitions))

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset at or after `timestamp` (ms), else the end."""
        asked = list(partitions)
        found = await self._blocking(lambda: self._offsets(asked, OffsetSpec.for_timestamp(timestamp)))
        return found | (await self.end_offsets([partition for partition, offset in found.items() if offset < 0]))

    def _ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._offsets(partitions, _LATEST)

    def _offsets(self, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        """One request per broker, however many partitions; again while what is known of them is old. Blocking."""
        asked, begun = dict.fromkeys(theirs(partitions), spec), time.monotonic()
        while asked:
            answers = self._admin.list_offsets(
                asked, isolation_level=ck.IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_WAIT
            )
            try:
                known = [
                    self._answer(answer, f"offsets of {key.topic}-{key.partition}") for key, answer in answers.items()
                ]
                return dict(zip(ours(answers), (one.offset for one in known), strict=True))
            except (LogUnavailableError, UnknownTopicError) as error:
                if time.monotonic() - begun > (GRACE if isinstance(error, UnknownTopicError) else REQUEST_WAIT):
                    raise
                time.sleep(0.1)
                self._admin.list_topics(timeout=REQUEST_WAIT)  # learns of new partitions and leaders
        return {}

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """What the group has committed."""
        asked = theirs(partitions)
        return await self._blocking(lambda: self._committed(group, asked)) if asked else {}

    def _committed(self, group: str, asked: list[ck.TopicPartition]) -> dict[TopicPartition, int]:
        deadline = time.monotonic() + REQUEST_WAIT
        while True:
            request = ck.ConsumerGroupTopicPartitions(group, asked)
            answers = self._admin.list_consumer_group_offsets(
                [request], require_stable=True, request_timeout=REQUEST_WAIT
            )
            known = self._answer(answers[group], f"committed offsets of {group}").topic_partitions
            error = next((one.error for one in known if one.error), None)
            if error is None:
                return {key: one.offset for key, one in zip(ours(known), known, strict=True) if one.offset >= 0}
            # A transaction that has been committed is being written down: the offset is about to change.
            if error.code() != ck.KafkaError.UNSTABLE_OFFSET_COMMIT or time.monotonic() > deadline:
                raise explained(error, f"committed offsets of {group}", self._who)
            time.sleep(0.01)

    def _answer(self, future: Future[Any], what: str) -> Any:
        try:
            return future.result()
        except ck.KafkaException as error:
            raise explained(error.args[0], what, self._who) from error

    async def _blocking(self, work: Callable[[], T]) -> T:
        """Run a call that blocks in one of this log's own threads."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except ck.KafkaException as error:
            raise as_choreo(error, f"Kafka at {self._hosts}", self._who) from error

    # --- consumers and producers ----------------------------------------------------------------------------------

    def producer(self, *, transactional_id: str | None = None) -> KafkaProducer:
        """An idempotent producer, or a transactional one."""
        conf = for_producer(self._hosts, self._settings, transactional_id)
        kind = TransactionalProducer if transactional_id else KafkaProducer
        producer = _made(lambda: kind(conf, self._who, self._limit_of))
        self._keep(producer)
        return producer

    def consumer(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        listener: Listener | None = None,
        start: Start = "earliest",
    ) -> KafkaConsumer:
        """A member of `group`, or a reader of all partitions."""
        name = group or f"choreo-reader-{uuid.uuid4()}"
        conf = for_consumer(self._hosts, self._settings, name, start)
        ends = self._ends if start == "latest" else None
        owner = _made(lambda: Owner(conf, list(topics), listener, self._who, ends, member=group is not None))
        consumer = KafkaConsumer(owner, group)
        self._keep(consumer)
        return consumer

    def _keep(self, opened: KafkaConsumer | KafkaProducer) -> None:
        """Remember what to close; what has been closed since is forgotten."""
        self._opened = [*(each for each in self._opened if not each.ended), opened]


def _made(make: Callable[[], T]) -> T:
    """A client; or which setting it does not take."""
    try:
        return make()
    except ck.KafkaException as error:
        remedy = "see librdkafka's CONFIGURATION.md"
        raise ConfigurationError(
            "a client setting of Kafka cannot work", why=error.args[0].str(), remedy=remedy
        ) from error


def _topic(name: str, found: Any) -> Topic:
    replicas = [len(partition.replicas) for partition in found.partitions.values()]
    return Topic(name=name, partitions=len(found.partitions), replication=min(replicas, default=-1))

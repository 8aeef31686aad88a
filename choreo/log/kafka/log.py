"""Kafka as a log: its address, topics and offsets."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # public

from choreo.errors import ConfigurationError, LogUnavailableError, UnknownTopicError
from choreo.log.kafka import admin, offsets, telemetry
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.errors import NO_ANSWER, UNKNOWN_TOPIC, as_choreo, explained, remedy_for
from choreo.log.kafka.owner import GRACE, Owner
from choreo.log.kafka.partitions import theirs
from choreo.log.kafka.producer import GaplessProducer, KafkaProducer
from choreo.log.kafka.rights import Operation, Right
from choreo.log.kafka.settings import for_admin, for_consumer, for_producer, parse, principal
from choreo.log.kafka.transactions import TransactionalProducer
from choreo.log.port import Listener, Position, Start, Topic, TopicPartition

T = TypeVar("T")

WAIT = 8.0  # seconds that passing trouble, or one request, may last
# Seconds without an answer after which a question is asked by new clients: the old may have lost their brokers for good.
TRY = WAIT / 2
_INTERNAL = {"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"}


class KafkaLog:
    """Implements `choreo.log.port.Log`."""

    def __init__(self, hosts: str, settings: Mapping[str, str]) -> None:
        self._hosts, self._settings = hosts, settings
        self._who = principal(settings)
        self._trouble: ck.KafkaError | None = None  # the last reason for no answer
        self._logger = telemetry.ClientLogger()
        self._renewed = 0.0
        self._opened: list[KafkaConsumer | KafkaProducer] = []
        self._offsets = offsets.Offsets(lambda: self._silent_consumer("choreo-offsets"), TRY)
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
        self._admin = _made(self._make_admin)
        what = f"Kafka at {self._hosts}"
        try:
            await self._ask(what, lambda: self._admin.list_topics(timeout=0.5))
        except LogUnavailableError as error:
            remedy = remedy_for(error.why) or "start it, or correct CHOREO_LOG and the client settings"
            raise LogUnavailableError(f"{what} gives no answer", why=error.why, remedy=remedy) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*(opened.close() for opened in self._opened))
        self._executor.submit(self._offsets.close)
        self._executor.shutdown(wait=False)

    def _make_admin(self) -> AdminClient:
        conf = for_admin(self._hosts, self._settings)
        return AdminClient(telemetry.callbacks(conf, self._on_error, self._logger))

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's code, which names no reason
            self._trouble = error

    async def _ask(self, what: str, work: Callable[[], T], *rights: Right) -> T:
        """Do `work`, which blocks and needs these rights, in one of this log's own threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._patiently, what, work, *rights)

    def _patiently(self, what: str, work: Callable[[], T], *rights: Right) -> T:
        """Do `work`, again while its trouble passes: 10 seconds, or 2 for a topic that may have been created just now."""
        begun = time.monotonic()
        while True:
            try:
                result = work()
                self._trouble, self._logger.failure = None, ""
                return result
            except (ck.KafkaException, LogUnavailableError, UnknownTopicError) as error:
                reason = self._reason(error, what, *rights)
                patience = (
                    WAIT if isinstance(reason, LogUnavailableError) else GRACE * isinstance(reason, UnknownTopicError)
                )
                now = time.monotonic()
                if isinstance(reason, LogUnavailableError) and now - max(begun, self._renewed) >= TRY:
                    self._renewed, self._admin = now, self._make_admin()
                    self._offsets.renew()
                if now - begun >= patience:
                    raise reason from error
            time.sleep(0.02)
            with contextlib.suppress(ck.KafkaException):
                self._admin.list_topics(timeout=0.5)  # learns of new partitions and leaders

    def _reason(self, error: Exception, what: str, *rights: Right) -> Exception:
        self._admin.poll(0)  # brings the reasons for no answer
        if isinstance(error, ck.KafkaException) and error.args[0].code() in NO_ANSWER:
            known = ck.KafkaError(error.args[0].code(), self._logger.failure or error.args[0].str())
            return explained(self._trouble or known, what, self._who)
        return as_choreo(error, what, self._who, *rights)

    # --- topics ---------------------------------------------------------------------------------------------------

    async def topics(self) -> dict[str, Topic]:
        known = await self._ask("topics", lambda: self._admin.list_topics(timeout=TRY).topics)
        return {name: _topic(name, found) for name, found in known.items() if name not in _INTERNAL}

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """Create those that do not exist; they can be used at once."""
        existing = await self.topics()
        missing = {topic.name: topic for topic in topics if topic.name not in existing}
        created: list[str] = []
        if missing:
            await self._ask("topics cannot be created", lambda: self._create(missing, created))
            await self._ask(f"topics {', '.join(created)}", lambda: self._see(created))
        return created

    def _create(self, missing: dict[str, Topic], created: list[str]) -> None:
        topics = [
            NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.settings))
            for topic in missing.values()
            if topic.name not in created
        ]
        for name, future in self._admin.create_topics(topics, request_timeout=TRY).items():
            try:
                future.result()
                created.append(name)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    right = Right("Create", "topic", name)
                    raise explained(error.args[0], f"topic {name} cannot be created", self._who, right) from error

    def _see(self, created: list[str]) -> None:
        if not self._admin.list_topics(timeout=TRY).topics.keys() >= set(created):
            raise LogUnavailableError("topics that were created are not to be seen yet", remedy="wait for them")

    async def settings_of(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        rights = [Right("DescribeConfigs", "topic", name) for name in topics]
        return await self._ask("settings of topics", lambda: admin.settings_of(self._admin, topics, WAIT), *rights)

    async def change_topic(self, topic: Topic) -> None:
        partitions, what = (await self.topics())[topic.name].partitions, f"topic {topic.name} cannot be changed"
        kind: Operation = "Alter" if topic.partitions > partitions else "AlterConfigs"
        right = Right(kind, "topic", topic.name)
        await self._ask(what, lambda: admin.change(self._admin, topic, partitions, WAIT), right)

    def _limit_of(self, topic: str) -> int | None:
        """A topic's `max.message.bytes`, asked for when a record is refused for its size. Blocking."""
        try:
            return int(admin.settings_of(self._admin, [topic], WAIT)[topic]["max.message.bytes"])
        except (ck.KafkaException, KeyError):
            return None

    def _look_at(self, name: str) -> Collection[int]:
        """A topic's partitions, or raise why it cannot be used: asked by name, the log says whether it only may not be seen."""
        known = self._admin.list_topics(name, timeout=TRY).topics[name]
        if known.error is not None:
            raise explained(known.error, f"topic {name}", self._who, Right("Describe", "topic", name))
        return known.partitions

    # --- offsets --------------------------------------------------------------------------------------------------

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._each(partitions, self._offsets.first)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._each(partitions, self._offsets.end)

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        found = await self._each(partitions, lambda at: self._offsets.since(at, timestamp))
        return found | (await self.end_offsets([partition for partition, offset in found.items() if offset < 0]))

    async def _each(
        self, partitions: Iterable[TopicPartition], ask: Callable[[TopicPartition], int]
    ) -> dict[TopicPartition, int]:
        asked = list(partitions)
        return await self._ask("offsets", lambda: self._list(asked, ask))

    def _ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """As `end_offsets`, for a consumer's thread: it blocks."""
        asked = list(partitions)
        return self._patiently("offsets", lambda: self._list(asked, self._offsets.end))

    def _list(self, asked: Sequence[TopicPartition], ask: Callable[[TopicPartition], int]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for key in asked:
            try:
                found[key] = ask(key)
            except ck.KafkaException as error:
                there = key.partition in self._look_at(key.topic)  # a topic that may not be seen has no leaders either
                cause, what = error.args[0], f"offsets of {key.topic}-{key.partition}"
                # A broker that has just been started may tell one client of fewer partitions than there are.
                if there and cause.code() in UNKNOWN_TOPIC:
                    cause = ck.KafkaError(ck.KafkaError._TIMED_OUT, cause.str())  # noqa: SLF001 - librdkafka's code for it
                raise explained(cause, what, self._who, Right("Describe", "topic", key.topic)) from error
        return found

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        asked = theirs(partitions)
        right = Right("Describe", "group", group)

        def ask() -> dict[TopicPartition, Position]:
            return offsets.committed(self._silent_consumer(group), asked, WAIT) if asked else {}

        return await self._ask(f"committed offsets of {group}", ask, right)

    async def members(self, group: str) -> int:
        right = Right("Describe", "group", group)
        return await self._ask(f"members of {group}", lambda: admin.members_of(self._admin, group, TRY), right)

    def _silent_consumer(self, group: str) -> ck.Consumer:
        """A client that asks for what only consumers are told."""
        conf = for_consumer(self._hosts, self._settings, group, "earliest")
        return ck.Consumer(telemetry.callbacks(conf, self._on_error, self._logger))

    # --- consumers and producers ----------------------------------------------------------------------------------

    def producer(self, *, transactional_id: str | None = None, gapless: bool = False) -> KafkaProducer:
        conf = for_producer(self._hosts, self._settings, transactional_id)
        kind = TransactionalProducer if transactional_id else GaplessProducer if gapless else KafkaProducer
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
        ends: bool = False,
    ) -> KafkaConsumer:
        name = group or f"choreo-reader-{uuid.uuid4()}"
        conf = for_consumer(self._hosts, self._settings, name, start, ends=ends)
        end_offsets = self._ends if start == "latest" else None
        owner = _made(lambda: Owner(conf, list(topics), listener, self._who, end_offsets, member=group is not None))
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
        what, remedy = "a client setting of Kafka cannot work", "see librdkafka's CONFIGURATION.md"
        raise ConfigurationError(what, why=error.args[0].str(), remedy=remedy) from error


def _topic(name: str, found: Any) -> Topic:
    replicas = [len(partition.replicas) for partition in found.partitions.values()]
    return Topic(name=name, partitions=len(found.partitions), replication=min(replicas, default=-1))

"""The one thread that touches a librdkafka consumer.

It polls, hands batches over, and between polls does what it is told by queue. It never waits for a handler: when
nobody takes its records it pauses the partitions and goes on polling, so that the member never leaves its group.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import confluent_kafka as ck

from choreo.errors import AccessError, LogError, LogUnavailableError, NotOwnerError, UnknownTopicError
from choreo.log.kafka import telemetry
from choreo.log.kafka.buffer import Buffer
from choreo.log.kafka.errors import UNKNOWN_TOPIC, as_choreo, explained
from choreo.log.kafka.partitions import Partitions, theirs
from choreo.log.kafka.patience import Patience
from choreo.log.kafka.rights import Right
from choreo.log.port import Listener, Record, TopicPartition

T = TypeVar("T")

BATCH = 500
POLL = 0.005  # seconds that a command waits at most while no records come
STALL = 0.5  # nobody takes records for so long: pause, which throws away what librdkafka has prefetched
GRACE = 2.0  # a topic may be unknown for so long after its creation
REFRESH = 30.0  # how often a reader without a group looks for new partitions

_value_of = itemgetter(1)


class Owner:
    """A consumer and its thread, which starts at once.

    Args:
        settings: of the librdkafka consumer.
        topics: to subscribe to, or when `member` is false to read without a group.
        who: the principal, for error messages.
        end_offsets: asks the log, blocking; None unless reading starts at the end.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        topics: list[str],
        listener: Listener | None,
        who: str,
        end_offsets: Callable[[Iterable[TopicPartition]], dict[TopicPartition, int]] | None,
        *,
        member: bool,
    ) -> None:
        self.buffer = Buffer()
        self.arrived = asyncio.Event()  # set on the loop: there are records, or a failure
        self.failure: Exception | None = None  # what ended it: polling raises it
        self.commands: deque[tuple[Callable[[], None], Future[Any]]] = deque()
        self.signal = threading.Event()  # wakes the thread: a command, room in the buffer, a listener's answer
        self.closing = False
        self.ended: Future[None] = Future()
        self._group = settings["group.id"]
        self.name = f"consumer {self._group!r}" if member else f"reader of {', '.join(topics)}"
        self.commits = Commits(f"commit of {self.name}", who, Right("Read", "group", self._group))
        self._topics, self._member, self._who, self._end_offsets = topics, member, who, end_offsets
        self._loop = asyncio.get_running_loop()
        limit = 0.8 * float(settings.get("max.poll.interval.ms", 300_000)) / 1_000
        ends = end_offsets if member else None
        self.partitions = Partitions(listener, self.buffer, limit, self._wait_for, self._fail, ends)
        self._full_since: float | None = None
        self._missing: set[str] = set()
        self._next_check = 0.0
        self._outage = telemetry.Outage(self.name)
        reporting = telemetry.callbacks(settings, lambda error: self._on_error(error, None))
        self._settings = {**reporting, "on_commit": self.commits.answered}
        self.client = ck.Consumer(self._settings)
        session = float(settings.get("session.timeout.ms", 45_000)) / 1_000
        self._patience = Patience(session, time.monotonic())
        threading.Thread(target=self._run, name=f"choreo {self.name}", daemon=True).start()

    def call(self, work: Callable[[Future[T]], None]) -> asyncio.Future[T]:
        """From the loop: let the thread do `work` between two polls; it settles the future given to it."""
        future: Future[T] = Future()
        self.commands.append((lambda: work(future), future))
        self.signal.set()
        if self.ended.done():
            self._refuse_commands()
        return asyncio.wrap_future(future)

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._member:
                self._join()
            while not self.closing:
                self._turn()
        except Exception as error:  # noqa: BLE001 - whatever ends the thread has to reach whoever polls
            self._fail(as_choreo(error, self.name, self._who))
        finally:
            self._end()

    def _join(self) -> None:
        known, client = self.partitions, self.client

        def heard(callback: Callable[..., None]) -> Callable[..., None]:
            """What clients say that have been replaced since counts no more."""
            return lambda _, partitions: callback(client, partitions) if client is self.client else None

        self.client.subscribe(self._topics, *map(heard, (known.on_assign, known.on_revoke, known.on_lost)))

    def _turn(self) -> None:
        self._run_commands()
        if self._is_left_out():
            self._replace_client()
        if time.monotonic() >= self._next_check:
            self._check_topics()
        if self.partitions.stalled and not self.buffer.filled(0.5):
            self._stall(False)
        if self.partitions.stalled or not self.buffer.filled(1):
            self._full_since = None
            self._fetch(POLL)
        else:
            self._wait_for_room()

    def _is_left_out(self) -> bool:
        now = time.monotonic()
        if self.partitions.joined or not self._member or self._settings.get("group.protocol") == "consumer":
            self._patience.taken_in(now)
        return self._patience.is_over(now)

    def _replace_client(self) -> None:
        telemetry.log.warning("kafka_client_replaced", client=self.name, reason="its group has left it out for long")
        self._patience.replaced(time.monotonic())
        threading.Thread(target=self.client.close, name=f"choreo old {self.name}", daemon=True).start()
        self.commits.refuse(LogUnavailableError(f"commit of {self.name}: no answer", remedy="repeat"))
        self.client = ck.Consumer(self._settings)
        self._join()

    def _wait_for_room(self) -> None:
        """While the stall is short only wait, then pause everything and go on polling."""
        self._full_since = self._full_since or time.monotonic()
        if time.monotonic() - self._full_since >= STALL:
            self._stall(True)
            return
        self.signal.wait(POLL)
        self.signal.clear()
        if self.commits:
            self._fetch(0)  # the answers to commits come by polling

    def _stall(self, stalled: bool) -> None:  # noqa: FBT001 - its only argument
        self.partitions.stalled = stalled
        change = self.client.pause if stalled else self.client.resume
        change(theirs(self.partitions.owned - self.buffer.paused))

    def _fetch(self, timeout: float) -> None:
        """Poll, which waits for the first record only, then take what else is there.

        A rebalance may happen inside either call, and commands with it: so the first record lies in the buffer before
        the second, where a seek or a pause finds it. Those of the second are dropped by librdkafka.
        """
        self.partitions.moved.clear()
        first = self.client.poll(timeout)
        if first is not None:
            self._take_in([first])
            if timeout:
                self._take_in(self.client.consume(BATCH - 1, 0))

    def _take_in(self, messages: Iterable[Any]) -> None:
        records: list[Record] = []
        ends: dict[TopicPartition, int] = {}
        for message in messages:
            if (error := message.error()) is not None:
                if error.code() == ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                    ends[TopicPartition(message.topic(), message.partition())] = message.offset()
                else:
                    self._on_error(error, message.topic())
            else:
                records.append(_record(message))
        if moved := self.partitions.moved:
            records = [record for record in records if record[:2] not in moved]
        again: set[tuple[str, int]] = set()
        if self.partitions.starts:
            there = {record[:2] for record in records}
            records = self.partitions.complete(self.client, records)
            again = there - {record[:2] for record in records}
        if records:
            self._outage.over()
            self.buffer.put(records)
            self.wake()
        if ends:
            self.buffer.end(self.partitions.ended(self.client, ends, moved | again))

    def wake(self) -> None:
        """Let a poll that waits look again."""
        if not self.arrived.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody polls any more
                self._loop.call_soon_threadsafe(self.arrived.set)

    def _wait_for(self, answer: Future[Any], limit: float) -> None:
        answer.add_done_callback(lambda _: self.signal.set())
        deadline = time.monotonic() + limit
        while not answer.done() and (left := deadline - time.monotonic()) > 0:
            self.signal.wait(left)
            self.signal.clear()
            self._run_commands()

    def _run_commands(self) -> None:
        while self.commands:
            command, future = self.commands.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                command()
            except Exception as error:  # noqa: BLE001 - it belongs to whoever gave the command
                future.set_exception(as_choreo(error, self.name, self._who))

    def _check_topics(self) -> None:
        """Whether the topics exist (twice missing: they do not). A reader takes the partitions it has not got yet."""
        self._next_check = time.monotonic() + GRACE
        try:
            known = self.client.list_topics(timeout=1).topics
            missing = {topic for topic in self._topics if topic not in known or known[topic].error}
            missing -= {topic for topic in missing if self._may_not_see(topic)}
            if not missing:
                self._next_check = float("inf") if self._member else time.monotonic() + REFRESH
                if not self._member:
                    self._read({TopicPartition(topic, n) for topic in self._topics for n in known[topic].partitions})
        except (ck.KafkaException, LogUnavailableError, UnknownTopicError) as error:  # the last: created just now
            telemetry.log.debug("kafka_topics_unknown", client=self.name, reason=str(error))
            return
        if gone := missing & self._missing:
            what = f"topic {', '.join(sorted(gone))} does not exist"
            raise UnknownTopicError(
                what, why=f"or {self._who} may not see it", remedy="create it: choreo topics create"
            )
        self._missing = missing

    def _may_not_see(self, topic: str) -> bool:
        """Whether a topic is only hidden; asked for by its name, the log says so."""
        error = self.client.list_topics(topic, timeout=1).topics[topic].error
        if error is None or error.code() != ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return False
        self._on_error(error, topic)
        return True

    def _read(self, partitions: set[TopicPartition]) -> None:
        """Without a group: read what is not read yet; all of a partition that came later, whatever the start."""
        added = sorted(partitions - self.partitions.owned)
        starts = self._end_offsets(added) if self._end_offsets is not None and not self.partitions.owned else {}
        if added:
            wanted = [ck.TopicPartition(*key, starts.get(key, ck.OFFSET_BEGINNING)) for key in added]
            self.partitions.on_assign(self.client, wanted)

    def _end(self) -> None:
        """Leave the group, which revokes what is owned; then tell everybody who waits."""
        try:
            if not self._member and self.partitions.owned:
                self.partitions.on_revoke(self.client, theirs(self.partitions.owned))
            self.client.close()
        except Exception as error:  # noqa: BLE001 - closing has to end whatever happens
            telemetry.log.warning("kafka_close_failed", client=self.name, reason=str(error))
        self.partitions.owned = frozenset()
        self._fail(LogError(f"{self.name} is closed", remedy="make a new one"))
        self.ended.set_result(None)
        self._refuse_commands()

    def _refuse_commands(self) -> None:
        closed = NotOwnerError(f"{self.name} is closed", remedy="forget what it did")
        self.commits.refuse(closed)
        while self.commands:
            _, future = self.commands.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(closed)

    def _on_error(self, error: ck.KafkaError, topic: str | None) -> None:
        """An error of the client, or of one topic: passing ones are waited out."""
        rights = [Right("Read", "topic", name) for name in ([topic] if topic else self._topics)]
        what = f"{self.name}, topic {topic}" if topic else self.name
        reason = explained(error, what, self._who, *rights, Right("Read", "group", self._group))
        if error.code() in UNKNOWN_TOPIC:
            self._next_check = 0.0
        elif not self._member and error.code() == ck.KafkaError.GROUP_AUTHORIZATION_FAILED:
            pass  # the client asks for a coordinator even when it reads without a group
        elif self._member and isinstance(reason, AccessError):
            self._outage.refused(reason)
        elif isinstance(reason, LogUnavailableError) or (isinstance(reason, NotOwnerError) and not error.fatal()):
            self._outage.seen(error)
            self._patience.unreachable(time.monotonic())
        else:
            self._fail(reason)

    def _fail(self, failure: Exception) -> None:
        self.failure = self.failure or failure
        self.wake()


_make: Callable[[tuple[Any, ...]], Record] = partial(tuple.__new__, Record)  # quicker than its own


def _record(message: Any) -> Record:
    headers = message.headers() or []
    if None in map(_value_of, headers):
        headers = [(name, value or b"") for name, value in headers]
    place = message.topic(), message.partition(), message.offset(), message.timestamp()[1]
    return _make((*place, message.key(), message.value(), headers))


class Commits:
    """Which future waits for which commit: librdkafka answers by a callback that names the offsets, not the call."""

    def __init__(self, what: str, who: str, *rights: Right) -> None:
        self._what, self._who, self._rights = what, who, rights
        self._waiting: dict[frozenset[tuple[str, int, int]], deque[Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(
        self, consumer: ck.Consumer, offsets: list[ck.TopicPartition], future: Future[None], *, at_once: bool
    ) -> None:
        """Commit; with `at_once` the thread waits, as it must inside a rebalance, where no answer comes by polling."""
        if at_once:
            self._settle(future, None, consumer.commit(offsets=offsets, asynchronous=False))
        else:
            consumer.commit(offsets=offsets, asynchronous=True)
            self._waiting.setdefault(_key(offsets), deque()).append(future)

    def answered(self, error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        """The broker's answer; to a commit that was waited for it comes once more, and finds nobody."""
        key = _key(partitions)
        if key in self._waiting:
            self._settle(self._waiting[key].popleft(), error, partitions)
            if not self._waiting[key]:
                del self._waiting[key]

    def refuse(self, reason: Exception) -> None:
        """No more answers will come."""
        for future in (future for waiting in self._waiting.values() for future in waiting):
            future.set_exception(reason)
        self._waiting.clear()

    def _settle(self, future: Future[None], error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        error = error or next((partition.error for partition in partitions if partition.error), None)
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(explained(error, self._what, self._who, *self._rights))


def _key(partitions: Iterable[ck.TopicPartition]) -> frozenset[tuple[str, int, int]]:
    return frozenset((partition.topic, partition.partition, partition.offset) for partition in partitions)

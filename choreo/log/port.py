"""The log port: topics, partitions, offsets and consumer groups, and what every adapter promises about them.

One conformance suite (`tests/conformance`) holds every adapter to the promises written here.
All methods are called from one asyncio event loop; an adapter keeps its own threads to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

Headers: TypeAlias = "list[tuple[str, bytes]]"
"""Record headers in order; a name may occur twice."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Position(NamedTuple):
    """What a group has committed of a partition.

    Attributes:
        offset: the next one to read.
        metadata: what the member that committed it has noted beside it; at most 4,096 bytes of UTF-8.
    """

    offset: int
    metadata: str = ""


class Record(NamedTuple):
    """A record as it lies in the log.

    Attributes:
        offset: its place in the partition; grows, but may have gaps (compaction, transaction markers).
        timestamp: milliseconds since the epoch, set by its producer.
        key, value: None where the producer wrote null (a null value is a tombstone).
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class NewRecord(NamedTuple):
    """A record to append.

    Without a partition its key decides (murmur2, as Java's default partitioner); without a key either, any
    partition may be chosen. Without a timestamp (ms, above 0) the log's clock decides.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None = None
    partition: int | None = None


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic to create, or one that exists.

    Attributes:
        settings: Kafka's topic settings by their own names (`retention.ms`, `cleanup.policy`, ...).
            The embedded logs honour `retention.ms` (without it they keep everything) and `max.message.bytes`, and keep
            the rest as given.
    """

    name: str
    partitions: int = 4
    replication: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)


Start: TypeAlias = Literal["earliest", "latest"]


class Listener(Protocol):
    """Told about a consumer's partitions. Called on the event loop, never two calls at once.

    Lists are increments. While a call runs, `poll` gives no records of the partitions it names, and
    `Consumer.commit` works from inside it (`Consumer.close` does not). When one raises, `poll` raises the same from then
    on, and the consumer is of no more use: close it.
    """

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """New partitions. Returns where to start reading; one not named starts at the group's committed offset."""

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These are about to go to another member: finish, commit and forget them. They are still owned."""

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These are owned by somebody else already: forget them, commit nothing."""


class Consumer(Protocol):
    """One member of a consumer group, or (with no group) a reader of all partitions of its topics.

    Promises: records of a partition come in offset order, each once per ownership; only committed
    transactions are seen; the member keeps its place in the group however long nobody polls (the adapter pauses the
    partitions behind the scenes and never leaves); records of a revoked partition are not returned after `revoked`.
    A position outside what the log keeps goes on as `start` says; where only the records before it are gone, the embedded
    logs skip nothing and go on at the first one kept.
    """

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""

    @property
    def ends(self) -> Mapping[TopicPartition, int]:
        """Partitions of which `poll` has returned everything before this offset, where the log ended when this was seen.

        Only a consumer that was made with `ends` knows, of a log that leaves gaps at its end: of others the end is
        next to the last record.
        """

    @property
    def joined(self) -> bool:
        """Whether the group has taken it in; its share of the partitions may be none all the same."""

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        """Wait for records and return at once with what is there, at most `max_records`, several partitions mixed.

        `timeout` is in seconds; empty list when it passes; None waits for ever. Cancelling a poll loses no record.

        Raises:
            LogError: the log refused for good (a login, an unknown topic), or this consumer is closed; passing trouble
                is waited out, by a member of a group also a right that is lacking.
        """

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for the group: the next offset to read, per partition.

        Raises:
            NotOwnerError: this member is not in the group any more, or owns one of these no more; nothing is committed
                (best effort: Kafka itself checks membership only).
            LogUnavailableError: not known to be committed; may be repeated.
            LogError: it reads without a group.
        """

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`; records already fetched from elsewhere are dropped.

        Raises:
            NotOwnerError: the partition is not owned (any more).
        """

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return no records of these until resumed; membership is kept. Those not owned are passed over."""

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Undo `pause`, with no record lost or repeated."""

    async def close(self) -> None:
        """Revoke what is owned (the listener is told), leave the group at once, free everything. May be repeated."""


class Producer(Protocol):
    """Appends records.

    Promises: records of one `append` to one partition keep their order, also across two appends of which the
    second was begun after the first had returned; a record is acknowledged only when the log's own durability
    rule is met (Kafka: all in-sync replicas; embedded: on disk); after `close`, appending raises LogError. A transactional id
    is claimed with the first append, and is the producer's from then on until a newer one claims it.
    """

    async def append(self, records: Sequence[NewRecord]) -> None:
        """Append all; returns when every record is acknowledged.

        Raises:
            RecordTooLargeError, UnknownTopicError: at least one of them cannot be appended, named in the message.
            LogUnavailableError: some may be appended and some not; the whole call may be repeated.
        """

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        positions: Mapping[TopicPartition, Position] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        """Append all and commit `positions` for `consumer`'s group, or do neither. Needs a `transactional_id`.

        Whoever asks for the group's positions afterwards, its next owner above all, waits until this has been decided.

        Raises:
            NotOwnerError: a newer producer of the same transactional id has fenced this one, or `consumer` does not own
                the partitions, or its listener has not returned from taking them.
            LogUnavailableError: aborted; may be repeated.
        """

    async def close(self) -> None:
        """Wait for what is under way, then free everything. May be repeated."""


class Log(Protocol):
    """An ordered, partitioned, durable log. Made by `choreo.log.open_log(url)`; use it as an async context manager."""

    @property
    def url(self) -> str:
        """The address it was opened with, without secrets."""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LogUnavailableError: within about 10 seconds, naming the address and the remedy.
        """

    async def __aexit__(self, *exc: object) -> None:
        """Close what this log opened."""

    async def topics(self) -> dict[str, Topic]:
        """The topics that exist, without the log's internal ones; settings may be left out."""

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """Create those that do not exist; returns their names. Existing ones are left as they are."""

    async def settings_of(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """The settings in force of topics that exist, set by themselves or for all."""

    async def change_topic(self, topic: Topic) -> None:
        """Give a topic these settings, others staying as they are, and this many partitions if it has fewer.

        Raises:
            ConfigurationError: this log's topics cannot be changed.
        """

    def producer(self, *, transactional_id: str | None = None, gapless: bool = False) -> Producer:
        """A producer. With a transactional id it appends atomically and fences older ones of the same id.

        Appends of a gapless producer may overlap: they take effect in the order they were begun, and the first that fails
        breaks the producer. Then all that is begun and not acknowledged fails, what comes later is refused, and nothing of
        it is sent any more. What was on its way may arrive, but never without all that was begun before it: so
        whoever repeats from the first append that was not acknowledged, with a new producer, leaves no gap and keeps
        the order, copies left aside. It waits out a log that gives no answer, however long; `close` breaks it too.
        """

    def consumer(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        listener: Listener | None = None,
        start: Start = "earliest",
        ends: bool = False,
    ) -> Consumer:
        """A consumer of these topics; `start` is where a partition without committed offset begins.

        Args:
            ends: whether its `ends` are wanted; they cost something whenever the end of a partition is reached.
        """

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset still kept."""

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset the next record will get (committed transactions only)."""

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """What the group has committed; partitions without a commit are left out."""

    async def members(self, group: str) -> int:
        """How many members the group has now; one that died counts until that is noticed."""

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset whose timestamp (ms) is at or after `timestamp`; the end offset if there is none."""

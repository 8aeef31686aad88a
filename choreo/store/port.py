"""The store port: a service's own durable state, in one transaction with the user's own writes.

One conformance suite (`tests/conformance`) holds every store to the promises written here. All methods are called
from one asyncio event loop; `lock` serialises who uses the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from choreo.log.port import NewRecord, Record, TopicPartition

Row: TypeAlias = tuple[Any, ...]


class Progress(NamedTuple):
    """How far a service has come in one partition.

    Attributes:
        watermark: every record below this offset is done.
        done: offsets at or above the watermark that are done too, the rest being holes; ascending.
        epoch: grows with each new owner; a write that names an older one is refused.
        deaths: how many owners in a row died here (never gave the partition back) before coming past what they had
            under way.
        suspects: offsets that were handled alone when an owner died, and how often; see `Store.suspect`.
    """

    watermark: int
    done: tuple[int, ...]
    epoch: int
    deaths: int = 0
    suspects: Mapping[int, int] = MappingProxyType({})


COPY = "another instance has handled a copy of one of these events first"
"""What a `CopyError` says."""


class OutboxRow(NamedTuple):
    """The emitted records of one batch, not known to be in the log yet.

    Attributes:
        row_id: grows with each row, so that rows are published in the order of their transactions.
    """

    row_id: int
    records: list[NewRecord]


class Behind(NamedTuple):
    """Records that wait behind a parked key's first, oldest first.

    Attributes:
        lane: the parked key, 16 bytes; see `choreo.runtime.parking`.
        record: as it was read.
    """

    lane: bytes
    record: Record


class Park(NamedTuple):
    """A key whose first record has gone to the retry topic or the dead letters: what comes later waits for it.

    Attributes:
        at: where records of this key come from; its owner is told of the parked key at `take_over`.
        head: the event id of the record that is away. Only who names it can release the key.
        handler, key: for people.
    """

    lane: bytes
    at: TopicPartition
    head: str
    handler: str
    key: bytes


class Note(NamedTuple):
    """Something that one handler has to remember of one saga (`choreo.runtime.sagas` says what).

    Attributes:
        number: the notes of a key are numbered from 0, each new one next to the last. Two instances that decide something at the
            same time from the same notes write the same number, and only one of them can: that decides every race.
        kind: what it says; a short word.
    """

    number: int
    kind: str
    content: bytes


class NewNote(NamedTuple):
    """A note to be written.

    Attributes:
        key: whose it is, 16 bytes.
        keep_ms: until when it matters at least, ms since the epoch; see `Store.expire_notes`.
        alone: whether it says all there is to say: the earlier notes of the key go.
    """

    key: bytes
    note: Note
    keep_ms: int
    alone: bool = False


class Timer(NamedTuple):
    """Something that is to happen at a time.

    Attributes:
        timer_id: 16 bytes; setting it again replaces it.
        at: the partition that its event came from; the owner of this partition lets it happen.
        due_ms: when, ms since the epoch.
        handler: the name of the handler to call.
        record: the event, as it was read.
    """

    timer_id: bytes
    at: TopicPartition
    due_ms: int
    handler: str
    record: Record


class Takeover(NamedTuple):
    """What a new owner finds.

    Attributes:
        progress: of each partition; watermark -1 where there was none yet.
        outbox: rows that earlier owners left, oldest first (`choreo.store.leftovers`).
        parked: the lanes whose records come from these partitions.
    """

    progress: dict[TopicPartition, Progress]
    outbox: list[OutboxRow]
    parked: set[bytes]


class Effects(NamedTuple):
    """What one transaction writes beside the user's own rows.

    Attributes:
        progress: the new progress of each partition; its epoch is the one this instance got from `take_over`.
        inbox: keys of (event, handler) pairs now done, 16 bytes each.
        outbox: records to publish after the commit, in order.
        ticked: outbox rows whose records the log has acknowledged.
        parked: keys to park; one that is parked already gets this head.
        behind: records to put behind the heads of their parked keys.
        unparked: sequence numbers of records, as `Store.behind` gave them, that wait no more.
        survived: partitions whose new owner has come past what killed others: deaths and suspects are forgotten.
        notes: to be written, those of one key in this order; they follow on those that are there.
        forgotten: keys of whose notes nothing is needed any more, those of this transaction included.
        timers: to be set.
        unset: ids of timers that are done with; those that are not there are passed over.
    """

    progress: Mapping[TopicPartition, Progress]
    inbox: Sequence[bytes] = ()
    outbox: Sequence[NewRecord] = ()
    ticked: Sequence[int] = ()
    parked: Sequence[Park] = ()
    behind: Sequence[Behind] = ()
    unparked: Sequence[int] = ()
    survived: Sequence[TopicPartition] = ()
    notes: Sequence[NewNote] = ()
    forgotten: Sequence[bytes] = ()
    timers: Sequence[Timer] = ()
    unset: Sequence[bytes] = ()


class Database(Protocol):
    """The store's connection inside the running transaction, as handlers see it (`ctx.db`).

    SQL is the store's own. Parameters stand in it as `$1, $2, …` in every kind of store; SQLite's `?` and PostgreSQL's `%s` work too.
    """

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement once per row."""
        ...

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, or None."""
        ...

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows."""
        ...


class Store(Protocol):
    """A service's progress, inbox, outbox and the user's own tables.

    Promises: what one transaction wrote is there as a whole or not at all, also after a SIGKILL; a commit whose
    progress names an outdated epoch changes nothing.
    """

    async def open(self, service: str, tables: str = "") -> None:
        """Connect, migrate, claim the store for this service, and run the SQL that makes its own tables.

        Raises:
            StoreOwnedError: it belongs to another service.
            StoreUnavailableError: no answer, no right or no room, named with the remedy.
        """
        ...

    async def close(self) -> None:
        """Roll back what is open and free everything. May be repeated."""
        ...

    async def take_over(self, partitions: Sequence[TopicPartition]) -> Takeover:
        """Become the owner of these partitions: their earlier owners are fenced from now on.

        An earlier owner that has not given a partition back counts as dead: its `deaths` grows.
        """
        ...

    async def give_back(self, epochs: Mapping[TopicPartition, int]) -> None:
        """This instance lets go of partitions in good order; those taken over meanwhile are passed over."""
        ...

    async def suspect(self, partition: TopicPartition, offset: int) -> None:
        """Note durably, before it is handled, that this record is about to be handled with no other beside it.

        Should this owner die, the next one finds it among the suspects, counted once more.
        """
        ...

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these inbox keys, 16 bytes each, are there."""
        ...

    async def expire(self, before_ms: int, after: bytes, limit: int) -> bytes:
        """Remove inbox keys noted before this time (ms since the epoch), looking at `limit` keys that follow `after`.

        Returns the last key looked at, to go on from; empty at the end of the inbox. Its own short transaction.
        """
        ...

    async def behind(self, lane: bytes, limit: int, head: str = "") -> list[tuple[int, Record]] | None:
        """The first records that wait in a parked lane, with their sequence numbers.

        None if it is not parked, or if `head` is named and not (any more) its head.
        """
        ...

    async def release(self, lane: bytes, head: str, at: TopicPartition, epoch: int) -> bool:
        """Park this lane no more, if nothing waits in it and `head` is still its head; says whether it did.

        Raises:
            FencedError: `at`, from which the head came, has been taken over since this epoch. What its new owner has
                emitted for this key is perhaps not in the log yet.
        """
        ...

    async def notes(self, keys: Sequence[bytes]) -> dict[bytes, list[Note]]:
        """The committed notes of these keys (16 bytes each), in order; keys without notes are left out. Never waits for a writer."""
        ...

    async def expire_notes(self, before_ms: int, after: bytes, limit: int) -> bytes:
        """Remove the notes of keys of which none is to be kept until this time or longer; else as `expire`."""
        ...

    async def due(self, partitions: Sequence[TopicPartition], before_ms: int, limit: int) -> list[Timer]:
        """The timers of these partitions that are due before this time, earliest first. However many others there are."""
        ...

    async def next_due(self, partitions: Sequence[TopicPartition]) -> int | None:
        """When the earliest timer of these partitions is due; None if there is none."""
        ...

    async def pending(self, partitions: Sequence[TopicPartition]) -> tuple[int, int | None]:
        """How many timers of these partitions there are, and when the earliest is due."""
        ...

    async def watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """How far these partitions are done, whoever owns them; those that nobody has begun are left out."""
        ...

    async def abandoned(self, before_ms: int) -> list[OutboxRow]:
        """Outbox rows read from no partition (`Bus.transaction` wrote them) before this time, oldest first."""
        ...

    @property
    def db(self) -> Database:
        """The user's view of the running transaction."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    async def begin(self) -> None:
        """Open the transaction. Waits its turn when another process writes."""
        ...

    async def savepoint(self) -> None:
        """Mark where `rollback_to_savepoint` goes back to; one at a time."""
        ...

    async def release_savepoint(self) -> None:
        """Keep what was written since the savepoint."""
        ...

    async def rollback_to_savepoint(self) -> None:
        """Undo what was written since the savepoint, and nothing before it."""
        ...

    async def commit(self, effects: Effects) -> int | None:
        """Write the effects and commit (opening the transaction first if none is open).

        Returns the id of the outbox row, if one was written.

        Raises:
            FencedError: another instance has taken over one of the partitions; everything is rolled back.
            ReleasedError: a lane that records were to be put behind is parked no more; everything is rolled back.
            OvertakenError: there is a note of this number or a higher one; everything is rolled back.
            CopyError: one of the inbox keys is there already; everything is rolled back.
            StoreUnavailableError: everything is rolled back.
        """
        ...

    async def rollback(self) -> None:
        """Undo the whole transaction, if one is open."""
        ...

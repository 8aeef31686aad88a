"""The store port: a service's own durable state, in one transaction with the user's own writes.

One conformance suite (`tests/conformance`) holds every store to the promises written here. All methods are called
from one asyncio event loop; `lock` serialises who uses the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from choreo.log.port import TopicPartition

Row: TypeAlias = tuple[Any, ...]


class Progress(NamedTuple):
    """How far a service has come in one partition.

    Attributes:
        watermark: every record below this offset is done.
        done: offsets at or above the watermark that are done too, the rest being holes; ascending.
        epoch: grows with each new owner; a write that names an older one is refused.
    """

    watermark: int
    done: tuple[int, ...]
    epoch: int


class OutboxRow(NamedTuple):
    """The emitted records of one batch, not known to be in the log yet.

    Attributes:
        row_id: grows with each row, so that rows are published in the order of their transactions.
        payload: the records, packed by `choreo.runtime.outbox`.
    """

    row_id: int
    payload: bytes


class Effects(NamedTuple):
    """What one transaction writes beside the user's own rows.

    Attributes:
        progress: the new progress of each partition; its epoch is the one this instance got from `take_over`.
        inbox: keys of (event, handler) pairs now done, 16 bytes each.
        outbox: packed records to publish after the commit; None if nothing was emitted.
        ticked: outbox rows whose records the log has acknowledged.
    """

    progress: Mapping[TopicPartition, Progress]
    inbox: Sequence[bytes] = ()
    outbox: bytes | None = None
    ticked: Sequence[int] = ()


class Database(Protocol):
    """The store's connection inside the running transaction, as handlers see it (`ctx.db`).

    SQL and placeholders are the store's own (SQLite: `?`, PostgreSQL: `%s`).
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

    async def take_over(
        self, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, Progress], list[OutboxRow]]:
        """Become the owner of these partitions: their earlier owners are fenced from now on.

        Returns the progress of each (watermark -1 where there was none yet) and the outbox rows that
        the earlier owners left, oldest first.
        """
        ...

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these inbox keys are there."""
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
            StoreUnavailableError: everything is rolled back.
        """
        ...

    async def rollback(self) -> None:
        """Undo the whole transaction, if one is open."""
        ...

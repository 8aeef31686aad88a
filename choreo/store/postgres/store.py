"""The PostgreSQL store: everything on the event loop, each step one round trip."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from uuid import uuid4

import psycopg

from choreo.errors import (
    ConfigurationError,
    CopyError,
    FencedError,
    OvertakenError,
    ReleasedError,
    StoreError,
    StoreUnavailableError,
)
from choreo.log.port import Record, TopicPartition
from choreo.store import records
from choreo.store.deaths import Owned, taken_over
from choreo.store.leftovers import left_for
from choreo.store.port import COPY, Effects, Note, OutboxRow, Progress, Takeover, Timer
from choreo.store.postgres import writing
from choreo.store.postgres.address import Address, schema_of
from choreo.store.postgres.connection import Connection, Cursor, Statement
from choreo.store.postgres.database import PostgresDatabase, Transaction
from choreo.store.postgres.opening import Q, migrate
from choreo.store.postgres.trouble import explain
from choreo.store.postgres.writing import as_array, as_json, as_name

_COMMIT: Statement = (b"COMMIT", None)
_TAKEN = re.compile(r"\(\\x([0-9a-f]{32}), (\d+)\)")
"""The key and the number in what PostgreSQL says of a note that is there already, in whatever language."""


class PostgresStore:
    """Implements `Store` in one schema of a PostgreSQL database (14 or newer).

    The writer runs the transactions; the reader looks beside them at what is committed, and does what is one
    statement. An instance is known to the server by its `application_name`.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._instance = uuid4().hex
        self._epochs: dict[TopicPartition, int] = {}
        self._dead: set[str] = set()
        """Earlier owners that never gave back: what holds our statements up may be theirs."""
        self._publishing: set[int] = set()
        """Outbox rows that this instance wrote, and publishes from memory."""
        self._connections: list[Connection] = []
        self._transaction: Transaction

    @classmethod
    def at(cls, url: str) -> PostgresStore:
        """The store at this address; see `Address.parse`."""
        return cls(Address.parse(url))

    # --- opening --------------------------------------------------------------------------------------------------

    async def open(self, service: str, tables: str = "") -> None:
        schema, name = self._address.schema or schema_of(service), f"choreo {self._instance}"
        self._writer = Connection(self._address, schema, name)
        # Whatever the server believes of the inbox, which grows faster than it looks: never read all of it.
        self._reader = Connection(self._address, schema, name, "SET enable_seqscan = off;", binary=True)
        self._connections = [self._writer, self._reader]
        self._transaction = Transaction(self._writer, self._why)
        self.db = PostgresDatabase(self._transaction)
        try:
            for connection in self._connections:
                await connection.open(opening=True)
            if names := await migrate(self._writer, self._address.shown, schema, service, tables):
                checks = ("SET CONSTRAINTS ALL IMMEDIATE", f"SET CONSTRAINTS {names} DEFERRED")
                self._transaction.checks = [(check.encode(), None) for check in checks]
        except psycopg.Error as error:
            await self.close()
            raise explain(error, self._address.shown, opening=True) or ConfigurationError(
                f"the tables of service {service!r} cannot be made", why=str(error).splitlines()[0]
            ) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    # --- beside the transaction -----------------------------------------------------------------------------------

    async def _ask(self, query: str, **parameters: str | bytes) -> Cursor:
        """One statement, a transaction of its own."""
        await self._reader.open()
        with self._own_statements():
            (cursor,) = await self._reader.run((Q[query], parameters))
        return cursor

    @contextmanager
    def _own_statements(self) -> Iterator[None]:
        """Choreo's own SQL is right: what refuses it (a right that was revoked, a table that is gone) can be mended."""
        try:
            yield
        except psycopg.Error as error:
            said = str(error).partition("\n")[0]
            raise StoreUnavailableError(f"the store {self._address.shown} is not as it was made", why=said) from error

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:
        """Never waits for a writer."""
        if not keys:
            return set()
        return {key for (key,) in await (await self._ask("seen", keys=b"".join(keys))).fetchall()}

    async def notes(self, keys: Sequence[bytes]) -> dict[bytes, list[Note]]:
        """Never waits for a writer."""
        found: dict[bytes, list[Note]] = {}
        for key, number, kind, content in await (await self._ask("notes", keys=b"".join(keys))).fetchall():
            found.setdefault(key, []).append(Note(number, kind, content))
        return found

    async def due(self, partitions: Sequence[TopicPartition], before_ms: int, limit: int) -> list[Timer]:
        at = as_json(partition._asdict() for partition in partitions)
        cursor = await self._ask("due", at=at, before=str(before_ms), limit=str(limit))
        return [
            Timer(timer_id, TopicPartition(topic, partition), due, handler, records.waiter(packed))
            for timer_id, topic, partition, due, handler, packed in await cursor.fetchall()
        ]

    async def next_due(self, partitions: Sequence[TopicPartition]) -> int | None:
        cursor = await self._ask("next_due", at=as_json(partition._asdict() for partition in partitions))
        ((due,),) = await cursor.fetchall()
        return None if due is None else int(due)

    async def pending(self, partitions: Sequence[TopicPartition]) -> tuple[int, int | None]:
        cursor = await self._ask("pending", at=as_json(partition._asdict() for partition in partitions))
        ((count, due),) = await cursor.fetchall()
        return int(count), due

    async def watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        cursor = await self._ask("watermarks", at=as_json(partition._asdict() for partition in partitions))
        return {TopicPartition(topic, partition): watermark for topic, partition, watermark in await cursor.fetchall()}

    async def expire(self, before_ms: int, after: bytes, limit: int) -> bytes:
        return await self._expire("expire", before_ms, after, limit)

    async def expire_notes(self, before_ms: int, after: bytes, limit: int) -> bytes:
        return await self._expire("expire_notes", before_ms, after, limit)

    async def _expire(self, query: str, before_ms: int, after: bytes, limit: int) -> bytes:
        cursor = await self._ask(query, before=str(before_ms), after=after, limit=str(limit))
        ((count, last),) = await cursor.fetchall()
        return bytes(last) if count == limit else b""

    async def behind(self, lane: bytes, limit: int, head: str = "") -> list[tuple[int, Record]] | None:
        cursor = await self._ask("behind", lane=lane, head=head.encode(), limit=str(max(1, limit)))
        return records.waiting(await cursor.fetchall(), limit)

    async def release(self, lane: bytes, head: str, at: TopicPartition, epoch: int) -> bool:
        owner = {"topic": at.topic, "partition": str(at.partition), "epoch": str(epoch)}
        released = (await self._ask("release", lane=lane, head=head.encode(), **owner)).rowcount > 0
        if not released and (fenced := await self._fenced({at: epoch})):
            raise FencedError(fenced)
        return released

    async def abandoned(self, before_ms: int) -> list[OutboxRow]:
        return await _rows(await self._ask("abandoned", before=str(before_ms), publishing=as_array(self._publishing)))

    async def suspect(self, partition: TopicPartition, offset: int) -> None:
        at = {"topic": partition.topic, "partition": str(partition.partition)}
        await self._ask("suspect", **at, offset=str(offset), me=self._instance)

    async def give_back(self, epochs: Mapping[TopicPartition, int]) -> None:
        await self._ask("give_back", owned=as_json({"epoch": epoch, **at._asdict()} for at, epoch in epochs.items()))
        for at in epochs:
            self._epochs.pop(at, None)

    async def _fenced(
        self, epochs: Mapping[TopicPartition, int], unless_owner: str | None = None
    ) -> list[TopicPartition]:
        """Those of the partitions that have been taken over since, and do not belong to this owner."""
        cursor = await self._ask("epochs", at=as_json(at._asdict() for at in epochs))
        return [
            at
            for topic, partition, epoch, owner in await cursor.fetchall()
            if epochs[at := TopicPartition(topic, partition)] != epoch and owner != unless_owner
        ]

    async def _why(self, error: StoreUnavailableError) -> StoreError:
        """What to say when the writer fails: an instance whose session a new owner has ended hears that it is fenced."""
        fenced: list[TopicPartition] = []
        for _ in range(2 if isinstance(error.__cause__, psycopg.Error) else 0):  # who is silent is not asked again
            with suppress(StoreError):  # the reader may have been cut off too, and is made anew the second time
                # Our own: a take-over of which nobody heard whether it was committed.
                fenced = await self._fenced(self._epochs, unless_owner=self._instance)
                break
        for at in fenced:
            del self._epochs[at]
        return FencedError(fenced) if fenced else error

    # --- ownership ------------------------------------------------------------------------------------------------

    async def take_over(self, partitions: Sequence[TopicPartition]) -> Takeover:
        at = as_json(partition._asdict() for partition in partitions)
        await self._ask("oust", at=at, me=self._instance, dead=as_array(self._dead))
        await self.begin()
        try:
            with self._own_statements():
                taken = await self._take_over(at, partitions)
        except BaseException:
            await self.rollback()
            raise
        self._transaction.end()
        self._epochs.update({partition: progress.epoch for partition, progress in taken.progress.items()})
        return taken

    async def _take_over(self, at: str, partitions: Sequence[TopicPartition]) -> Takeover:
        run = self._transaction.run
        # One that has only just begun to stand still is ousted by the attempt after this one.
        limit: Statement = (b"SET LOCAL lock_timeout = '5s'", None)
        *_, found = await run(limit, (Q["make_progress"], {"at": at}), (Q["progress"], {"at": at}))
        progress: dict[TopicPartition, Progress] = {}
        for topic, partition, *row in await found.fetchall():
            before = Owned(*row)
            progress[TopicPartition(topic, partition)] = taken_over(before, self._instance)
            self._dead.update({before.owner} - {"", self._instance})
        owned = as_json(
            {**at._asdict(), "epoch": now.epoch, "deaths": now.deaths, "suspects": json.dumps(dict(now.suspects))}
            for at, now in progress.items()
        )
        mine = [as_name(partition) for partition in partitions]
        read_from = {"partitions": as_array(mine), "publishing": as_array(self._publishing)}
        _, left, parked, _ = await run(
            (Q["take_over"], {"owned": owned, "me": self._instance}),
            (Q["outbox"], read_from),
            (Q["parked"], {"at": at}),
            _COMMIT,
        )
        outbox = left_for(mine, await left.fetchall())
        return Takeover(progress, outbox, {lane for (lane,) in await parked.fetchall()})

    # --- the transaction ------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._transaction.is_open

    async def begin(self) -> None:
        await self._writer.open()
        self._transaction.begin()

    async def savepoint(self) -> None:
        self._transaction.savepoint()

    async def release_savepoint(self) -> None:
        await self._transaction.release()

    async def rollback_to_savepoint(self) -> None:
        await self._transaction.undo()

    async def commit(self, effects: Effects) -> int | None:
        if not self.in_transaction:
            await self.begin()
        first = list(writing.first(effects, self._instance))
        try:
            cursors = await self._transaction.run(*first, writing.unit(effects), *writing.last(effects), _COMMIT)
        except psycopg.IntegrityError as error:
            await self.rollback()
            raise await self._refusal(error, effects) from error
        except BaseException:
            await self.rollback()
            raise
        self._transaction.end()
        self._publishing.difference_update(effects.ticked)
        row = await cursors[len(first)].fetchone()
        if row is None:
            return None
        self._publishing.add(row[0])
        return int(row[0])

    async def _refusal(self, error: psycopg.IntegrityError, effects: Effects) -> Exception:
        """Why a constraint refused the effects: four of them are there for that."""
        if fenced := await self._fenced({at: now.epoch for at, now in effects.progress.items()}):
            return FencedError(fenced)
        if (error.diag.table_name, error.diag.column_name) == ("choreo_behind", "lane"):
            return ReleasedError("a key that records were to wait behind is parked no more")
        if error.diag.table_name == "choreo_inbox":
            return CopyError(COPY)
        if error.diag.table_name == "choreo_notes":
            taken = _TAKEN.search(error.diag.message_detail or "")
            note = f"note {taken[2]} of {taken[1]}" if taken else "a note of one of these sagas"
            return OvertakenError(f"another instance has written {note}, or a later one, first")
        return error

    async def rollback(self) -> None:
        if self._connections and self._transaction.is_open:
            self._transaction.end()
            if self._writer.in_transaction:
                with suppress(StoreUnavailableError):  # then the server has undone it
                    await self._writer.run((b"ROLLBACK", None))


async def _rows(cursor: Cursor) -> list[OutboxRow]:
    return [OutboxRow(row_id, records.emitted(packed)) for row_id, packed in await cursor.fetchall()]

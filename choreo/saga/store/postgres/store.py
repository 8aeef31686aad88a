"""The tracker's store in PostgreSQL: everything on the event loop, each step one round trip."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg

from choreo.errors import FencedError, StoreUnavailableError
from choreo.log.port import TopicPartition
from choreo.saga.sighting import Settled, Sighting
from choreo.saga.store.packing import event_key, is_stray, key_of, packed_event, saga_of
from choreo.saga.store.port import Folded, Place, TrackerStore
from choreo.saga.store.postgres import opening, writing
from choreo.saga.store.postgres.questions import Questions
from choreo.saga.store.postgres.writing import Q
from choreo.saga.store.rows import kind_of
from choreo.store.postgres.address import Address
from choreo.store.postgres.connection import Connection, Cursor, Statement
from choreo.store.postgres.trouble import explain

_HOUR, _DAY, _MINUTE = 3_600_000, 86_400_000, 60_000
SCHEMA = "choreo_tracker"


class PostgresTrackerStore(Questions):
    """Implements `TrackerStore` in one schema, for several instances at once."""

    def __init__(self, address: Address, *, anew: bool = False) -> None:
        self._address, self._anew = address, anew
        self.schema = address.schema or SCHEMA
        self._me = uuid4().hex
        self._turns, self._questions = asyncio.Lock(), asyncio.Lock()
        self._connections: list[Connection] = []
        self._forget_numbers()

    @classmethod
    def at(cls, url: str) -> PostgresTrackerStore:
        """The store at this address; see `choreo.store.postgres.address.Address`."""
        return cls(Address.parse(url))

    @property
    def url(self) -> str:
        return self._address.shown

    async def open(self, *, reads_only: bool = False) -> None:
        name = f"choreo tracker {self._me}"
        # Whatever the server believes of tables that grow faster than it looks: by index.
        by_index = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
        self._writer = Connection(self._address, self.schema, name, by_index, binary=True)
        self._reader = Connection(self._address, self.schema, name, by_index, binary=True)
        self._connections = [self._writer, self._reader]
        try:
            for connection in self._connections:
                await connection.open(opening=True)
            if self._anew:
                await opening.drop(self._writer, self.schema)
            if reads_only:
                await opening.check(self._reader, self.url, self.schema)
            else:
                await opening.migrate(self._writer, self.url, self.schema)
        except psycopg.Error as error:
            await self.close()
            raise explain(error, self.url, opening=True) or error from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def beside(self) -> PostgresTrackerStore:
        return PostgresTrackerStore(self._address._replace(schema=f"{self.schema[:58]}_new"), anew=True)

    async def replace(self, rebuilt: TrackerStore) -> None:
        assert isinstance(rebuilt, PostgresTrackerStore)  # noqa: S101 - it was made by `beside`
        await rebuilt.close()
        connection = Connection(self._address, self.schema, f"choreo tracker {self._me}")
        await connection.open(opening=True)
        try:
            await opening.replace(connection, self.url, self.schema, rebuilt.schema)
        finally:
            await connection.close()

    # --- reading the log ------------------------------------------------------------------------------------------

    async def take_over(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        ids = [await self._place(at) for at in wanted]
        async with self._transaction() as run:
            (cursor,) = await run((Q["own"], (self._me, ids)))
            rows = await cursor.fetchall()
        return {TopicPartition(topic, number): start for topic, number, start in rows}

    async def add(
        self,
        seen: Sequence[Sighting],
        progress: Mapping[TopicPartition, Place],
        data: Sequence[tuple[str, str, str]] = (),
    ) -> list[str]:
        await self._learn(seen)
        moved = [(await self._place(at), *place) for at, place in sorted(progress.items())]
        statements = writing.seen(seen, self._place_ids, self._name_ids)
        letters = sorted({each.said.of for each in seen if isinstance(each.said, Settled)})
        keys = {key_of(each.saga) for each in seen if each.saga}
        rows = sorted({(name, value, key_of(saga)) for name, value, saga in data})
        async with self._transaction() as run:
            if moved:
                (cursor,) = await run((Q["read_on"], (*writing.arrays(moved), self._me)))
                if cursor.rowcount < len(moved):
                    raise FencedError(list(progress))
            if rows:
                statements.append((Q["data"], writing.arrays(rows)))
            if letters:
                statements.append((Q["sagas_of_letters"], (letters,)))
            cursors = await run(*statements) if statements else []
            settled = {key for (key,) in await cursors[-1].fetchall()} if letters else set[bytes]()
            if keys | settled:
                await run((Q["mark"], (sorted(keys | settled),)))
        return [saga_of(key) for key in sorted(settled)]

    async def _learn(self, seen: Sequence[Sighting]) -> None:
        await self._names({each.type_name for each in seen} | {each.source for each in seen})
        for at in {(each.place.topic, each.place.partition) for each in seen}:
            await self._place(TopicPartition(*at))

    # --- folding --------------------------------------------------------------------------------------------------

    async def keep(self, folded: Sequence[Folded]) -> None:
        by_key = {key_of(each.summary.saga): each for each in folded}
        if not by_key:
            return
        kinds = {key: await self._kind(kind_of(each.summary)) for key, each in by_key.items()}
        await self._names({wait.group for each in folded for wait in each.waits})
        waits = {
            key: sorted({(self._name_ids[w.group], await self._place(w.at), w.offset) for w in each.waits})
            for key, each in by_key.items()
        }
        keys = sorted(by_key)
        async with self._transaction() as run:
            held, found = await run((Q["hold"], (keys,)), (Q["before"], (keys,)))
            marks: dict[bytes, int] = dict(await held.fetchall())
            current = {key: each for key, each in by_key.items() if marks.get(key) == each.mark}
            before = {key: (kind, waited) for key, kind, waited in await found.fetchall()}
            if current:
                await run(*writing.Kept(current, before, kinds, waits).statements())

    async def advance(self, committed: Mapping[tuple[str, TopicPartition], int], at_ms: int) -> list[str]:
        if not committed:
            return []
        await self._names({group for group, _ in committed})
        told = sorted(
            [(self._name_ids[group], await self._place(at), offset) for (group, at), offset in committed.items()]
        )
        arrays = writing.arrays(told)
        async with self._transaction() as run:
            _, passed = await run((Q["commit"], (*arrays, at_ms)), (Q["passed"], arrays))
            keys = sorted(key for (key,) in await passed.fetchall())
            if keys:
                await run((Q["mark"], (keys,)), (Q["unwatch_passed"], (*arrays, keys)))
        return [saga_of(key) for key in keys]

    async def due(self, now_ms: int, limit: int) -> list[str]:
        keys = sorted(key for (key,) in await self._rows("due", now_ms, limit))
        if keys:
            async with self._transaction() as run:
                await run((Q["mark"], (keys,)), (Q["not_due"], (keys,)))
        return [saga_of(key) for key in keys]

    # --- housekeeping ---------------------------------------------------------------------------------------------

    async def note(self, name: str, value: str) -> None:
        async with self._transaction() as run:
            await run((Q["note"], (name, value)))

    async def expire(self, before_ms: int, limit: int) -> int:
        found = sorted(key for (key,) in await self._rows("old", before_ms, limit))
        if not found:
            return 0
        async with self._transaction() as run:
            (seized,) = await run((Q["seize"], (found,)))
            mine = sorted(key for (key,) in await seized.fetchall())
            (still,) = await run((Q["still_old"], (mine, before_ms)))
            keys = sorted(key for (key,) in await still.fetchall())
            _, seen, held = await run((Q["forget_marks"], (mine,)), (Q["sightings"], (keys,)), (Q["before"], (keys,)))
            packed = [(key, packed_event(content)) for key, _, _, content in await seen.fetchall()]
            strays = sorted({(event_key(event), key) for key, event in packed if is_stray(event, key)})
            before = await held.fetchall()
            waits = [(*wait, key) for key, _, waited in before for wait in writing.unpacked(waited)]
            moved = Counter({kind: 0 for _, kind, _ in before})
            moved.subtract(kind for _, kind, _ in before)
            statements: list[Statement] = [(Q["forget_strays"], writing.arrays(strays))] if strays else []
            statements += [(Q["unwatch"], writing.arrays(sorted(waits)))] if waits else []
            gone = ("forget_letters", "forget_sightings", "forget_data", "forget_sagas")
            await run(*statements, *((Q[query], (keys,)) for query in gone), *writing.count(moved))
        return len(found)

    async def thin(self, now_ms: int) -> None:
        async with self._transaction() as run:
            await run(*((Q["thin"], (now_ms - old, span)) for old, span in ((_HOUR, _MINUTE), (_DAY, _HOUR))))

    def _check(self, found: list[tuple[str]]) -> None:
        """Begin to write.

        Raises:
            FencedError: the store was rebuilt: the numbers that are known are another's.
        """
        born = found[0][0] if found else ""
        known, self._born = self._born or born, born
        if known != born:
            self._forget_numbers()
            raise FencedError([])

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Callable[..., Awaitable[list[Cursor]]]]:
        """One at a time; undone if anything goes wrong.

        Raises:
            StoreUnavailableError: it could not be done, and may be repeated.
        """
        async with self._turns:
            await self._writer.open()
            try:
                _, born = await self._writer.run((b"BEGIN", None), (Q["born"], None))
                self._check(await born.fetchall())
                yield self._writer.run
                await self._writer.run((b"COMMIT", None))
            except psycopg.Error as error:
                await self._writer.close()
                said = str(error).partition("\n")[0]
                raise StoreUnavailableError(f"the tracker's store {self.url} refuses", why=said) from error
            except BaseException:
                await self._writer.close()  # undone by the server
                raise

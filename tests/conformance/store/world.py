"""One service's store as the suite sees it: opened several times, looked at from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from choreo.log.port import NewRecord, TopicPartition
from choreo.store import Effects, Progress, Store, make_store

SERVICE = "payments"
TABLES = "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT)"
P0, P1, P2 = (TopicPartition("orders", number) for number in range(3))


def key(number: int) -> bytes:
    """An inbox key."""
    return number.to_bytes(16, "big")


def emitted(value: bytes) -> list[NewRecord]:
    """What a batch emitted, told apart by its value."""
    return [NewRecord("emitted", b"key", value, [])]


class World:
    """A place where a store is, and every store opened there.

    Attributes:
        url: what `make_store` takes; empty if it is not made by an address.
        placeholder: how this store writes parameters in SQL.
    """

    def __init__(self, url: str, placeholder: str, made: Callable[[], Store] | None = None) -> None:
        self.url = url
        self.placeholder = placeholder
        self._made = made or (lambda: make_store(url))
        self._stores: list[Store] = []

    def make(self) -> Store:
        """A store that the world closes at the end."""
        store = self._made()
        self._stores.append(store)
        return store

    async def open(self, service: str = SERVICE, tables: str = TABLES) -> Store:
        """One more instance of the service with this store."""
        store = self.make()
        await store.open(service, tables)
        return store

    async def close(self) -> None:
        """Close everything."""
        for store in self._stores:
            await store.close()

    async def put(self, store: Store, name: str, text: str = "") -> None:
        """Write a row of the user's, in the running transaction."""
        await store.db.execute(f"INSERT INTO notes VALUES ({self.placeholder}, {self.placeholder})", (name, text))

    async def write(self, store: Store, names: Sequence[str], effects: Effects) -> int | None:
        """One whole transaction with user rows."""
        await store.begin()
        for name in names:
            await self.put(store, name)
        return await store.commit(effects)

    async def notes(self) -> list[str]:
        """The user's rows that are durable, seen by another instance."""
        rows: list[tuple[Any, ...]] = await self.ask("SELECT id FROM notes ORDER BY id")
        return [row[0] for row in rows]

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a question about what is durable."""
        store = await self.open()
        await store.begin()
        rows = await store.db.fetch_all(sql)
        await store.close()
        return rows

    async def leftovers(self, *partitions: TopicPartition) -> list[bytes]:
        """The outbox that a new owner of these partitions would find. Fences the present one."""
        store = await self.open()
        rows = (await store.take_over(partitions)).outbox
        await store.close()
        return [row.records[0].value for row in rows]


def progress(epoch: int, watermark: int = 1, done: tuple[int, ...] = ()) -> Progress:
    """Progress with its parts in the order that tests vary them."""
    return Progress(watermark, done, epoch)


async def own(store: Store, *partitions: TopicPartition) -> int:
    """Take partitions over that had all the same epoch before; returns their new one."""
    taken = (await store.take_over(partitions)).progress
    (epoch,) = {known.epoch for known in taken.values()}
    return epoch

"""A real store and a real log with faults in between, for one service's instance."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from choreo.errors import LogUnavailableError
from choreo.log.port import Log, NewRecord, Producer, TopicPartition
from choreo.runtime import instance
from choreo.store import Store, make_store
from choreo.store.port import Effects

Fault = Callable[[str, int], Any]
"""Called with where we are and the how manieth time this is; may raise, or return something to await."""


class Faults:
    """Where faults are planned.

    Points: `begin`, `commit`, `release` and `take_over` of the store, `append` and `transact` of the log, each before it is done and,
    as `committed`, `released`, `taken_over`, `appended` and `transacted`, when it is done but nobody has heard of it.
    """

    def __init__(self) -> None:
        self.plan: Fault = lambda _point, _count: None
        self.counts: Counter[str] = Counter()

    async def at(self, point: str) -> None:
        """Pass a point."""
        self.counts[point] += 1
        planned = self.plan(point, self.counts[point])
        if planned is not None:
            await planned

    def fail(self, point: str, error: Exception, *, times: int = 1, after: int = 0) -> None:
        """Raise at this point some times, the first `after` times excepted."""

        def plan(here: str, count: int) -> None:
            if here == point and after < count <= after + times:
                raise error

        self.counts.clear()
        self.plan = plan

    def freeze(self, point: str, count: int = 1) -> asyncio.Event:
        """Let nothing go on from this point, the `count`th time; the event tells when it has come so far."""
        reached = asyncio.Event()

        async def stop() -> None:
            reached.set()
            await asyncio.Event().wait()

        self.counts.clear()
        self.plan = lambda here, now: stop() if here == point and now >= count else None
        return reached

    def none(self) -> None:
        """No faults any more."""
        self.plan = lambda _point, _count: None


class FaultyStore:
    """A store with faults in it; what is not named here is the store's own."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def begin(self) -> None:
        """See `Store.begin`."""
        await self._faults.at("begin")
        await self._store.begin()

    async def release(self, lane: bytes, head: str, at: TopicPartition, epoch: int) -> bool:
        """See `Store.release`."""
        await self._faults.at("release")
        released = await self._store.release(lane, head, at, epoch)
        await self._faults.at("released")
        return released

    async def take_over(self, partitions: Any) -> Any:
        """See `Store.take_over`."""
        await self._faults.at("take_over")
        taken = await self._store.take_over(partitions)
        await self._faults.at("taken_over")
        return taken

    async def commit(self, effects: Effects) -> int | None:
        """See `Store.commit`."""
        try:
            await self._faults.at("commit")
        except Exception:
            await self._store.rollback()  # as the store itself promises
            raise
        row = await self._store.commit(effects)
        await self._faults.at("committed")
        return row


class FaultyProducer:
    """A producer with faults in it, which break it as they would a gapless one."""

    def __init__(self, producer: Producer, faults: Faults) -> None:
        self._producer, self._faults = producer, faults
        self._turn, self._broken = asyncio.Lock(), False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    async def append(self, records: Sequence[NewRecord]) -> None:
        """See `Producer.append`."""
        async with self._turn:
            if self._broken:
                raise LogUnavailableError("this producer is broken")
            self._broken = True
            await self._faults.at("append")
            await self._producer.append(records)
            await self._faults.at("appended")
            self._broken = False

    async def append_atomically(self, records: Sequence[NewRecord], positions: Any, consumer: Any) -> None:
        """See `Producer.append_atomically`; a transaction of nothing passes no point."""
        if records or positions:
            await self._faults.at("transact")
        await self._producer.append_atomically(records, positions, consumer)
        if records or positions:
            await self._faults.at("transacted")


class FaultyLog:
    """A log whose producers have faults in them."""

    def __init__(self, log: Log, faults: Faults) -> None:
        self._log, self._faults = log, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def producer(self, **options: Any) -> Any:
        """See `Log.producer`."""
        return FaultyProducer(self._log.producer(**options), self._faults)


def plant(monkeypatch: pytest.MonkeyPatch, faults: Faults, service: str = "payments") -> None:
    """From now on new instances of this service have these faults in their store."""

    def make(url: str) -> Any:
        store = make_store(url)
        return FaultyStore(store, faults) if f"/{service}.db" in url else store

    monkeypatch.setattr(instance, "make_store", make)

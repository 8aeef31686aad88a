"""The tracker's store in one SQLite file: what may wait (locks, commits, long questions) is done on threads of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import uuid4

from choreo.errors import ConfigurationError
from choreo.log.port import TopicPartition
from choreo.saga.filters import Filter
from choreo.saga.sighting import Sighting
from choreo.saga.store import paging
from choreo.saga.store.packing import key_of, saga_of
from choreo.saga.store.port import Commit, Count, Folded, Page, Place, Sightings, Summary, TrackerStore
from choreo.saga.store.sqlite import asking, opening
from choreo.saga.store.sqlite.writing import Q, Writing
from choreo.store.sqlite.database import begin_patiently, passing
from choreo.store.waiting import to_its_end

T = TypeVar("T")
_HOUR, _DAY, _MINUTE = 3_600_000, 86_400_000, 60_000


class SqliteTrackerStore:
    """Implements `TrackerStore` in one file: one instance writes, others ask.

    Args:
        anew: whether what is there already is removed when it is opened.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path, self._anew = path, anew
        self._me = uuid4().hex
        self._threads = [ThreadPoolExecutor(1, name) for name in ("choreo-tracker-writer", "choreo-tracker-reader")]
        self._connections: list[sqlite3.Connection] = []
        self._writing: Writing
        self._asking: asking.Asking

    @classmethod
    def at(cls, url: str) -> SqliteTrackerStore:
        """The store at `sqlite:///path`.

        Raises:
            ConfigurationError: it names no file, or more than that.
        """
        path = url.removeprefix("sqlite://")
        if not path.startswith("/") or path == "/" or "?" in path:
            remedy = "write sqlite:///relative.db or sqlite:////absolute.db"
            raise ConfigurationError(f"the address of the tracker's store {url!r} is not valid", remedy=remedy)
        return cls(Path(unquote(path[1:])))

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    # --- opening --------------------------------------------------------------------------------------------------

    async def open(self, *, reads_only: bool = False) -> None:
        try:
            await self._write_thread(lambda: self._open(reads_only=reads_only))
        except BaseException:
            await self.close()
            raise

    def _open(self, *, reads_only: bool) -> None:
        if reads_only:
            reader = opening.reader(self.path)
            self._connections = [reader]
        else:
            owner = opening.owned(self.path)
            if self._anew:
                opening.remove(self.path)
            writer = opening.writer(self.path)
            reader = opening.reader(self.path)
            self._connections = [reader, writer, owner]
            self._writing = Writing(writer)
        asking.prepare(reader)
        self._asking = asking.Asking(reader)

    async def close(self) -> None:
        connections, self._connections = self._connections, []
        if connections:
            await self._run(self._threads[0], lambda: _close(connections))
        for thread in self._threads:
            thread.shutdown(wait=False)

    def beside(self) -> SqliteTrackerStore:
        return SqliteTrackerStore(self.path.with_name(f"{self.path.name}.new"), anew=True)

    async def replace(self, rebuilt: TrackerStore) -> None:
        assert isinstance(rebuilt, SqliteTrackerStore)  # noqa: S101 - it was made by `beside`
        await rebuilt.close()
        await asyncio.to_thread(opening.replace, self.path, rebuilt.path)

    # --- writing --------------------------------------------------------------------------------------------------

    async def take_over(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        return await self._write(lambda: self._writing.own(wanted, self._me))

    async def add(
        self,
        seen: Sequence[Sighting],
        progress: Mapping[TopicPartition, Place],
        data: Sequence[tuple[str, str, str]] = (),
    ) -> list[str]:
        return await self._write(lambda: self._writing.add(seen, progress, data, self._me))

    async def keep(self, folded: Sequence[Folded]) -> None:
        await self._write(lambda: self._writing.keep(folded))

    async def advance(self, committed: Mapping[tuple[str, TopicPartition], int], at_ms: int) -> list[str]:
        return await self._write(lambda: self._writing.advance(committed, at_ms))

    async def due(self, now_ms: int, limit: int) -> list[str]:
        return await self._write(lambda: self._writing.due(now_ms, limit))

    async def note(self, name: str, value: str) -> None:
        await self._write(lambda: self._writer.execute(Q["note"], (name, value)))

    async def expire(self, before_ms: int, limit: int) -> int:
        return await self._write(lambda: self._writing.forget(before_ms, limit))

    async def thin(self, now_ms: int) -> None:
        def thin() -> None:
            for before, span in ((now_ms - _HOUR, _MINUTE), (now_ms - _DAY, _HOUR)):
                self._writer.execute(Q["thin"], (before, span, span))

        await self._write(thin)

    @property
    def _writer(self) -> sqlite3.Connection:
        return self._connections[1]

    async def _write(self, work: Callable[[], T]) -> T:
        """Do it in a transaction, or not at all."""

        def transaction() -> T:
            begin_patiently(self._writer)
            try:
                self._writing.check()
                result = work()
                self._writer.execute("COMMIT")
                return result
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                self._writing.undone()
                raise

        return await self._write_thread(transaction)

    async def _write_thread(self, work: Callable[[], T]) -> T:
        return await self._run(self._threads[0], work)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Do blocking work on a thread of the store's; its errors become choreo's."""

        def guarded() -> T:
            with passing(self.path):
                return work()

        return await to_its_end(asyncio.get_running_loop().run_in_executor(thread, guarded))

    # --- asking ---------------------------------------------------------------------------------------------------

    async def marked(self, limit: int) -> list[str]:
        return await self._ask(lambda asked: [saga_of(key) for (key,) in asked.all(Q["marked"], (limit,))])

    async def sightings(self, sagas: Iterable[str]) -> dict[str, Sightings]:
        wanted, mark = list(sagas), 0
        if len(self._connections) > 1:
            mark, self._writing.turn = self._writing.turn, self._writing.turn + 1
        return await self._ask(lambda asked: asked.sightings(wanted, mark))

    async def waited_for(self) -> dict[str, set[TopicPartition]]:
        def grouped(asked: asking.Asking) -> dict[str, set[TopicPartition]]:
            found: dict[str, set[TopicPartition]] = {}
            for group, topic, partition in asked.all(Q["waited_for"]):
                found.setdefault(group, set()).add(TopicPartition(topic, partition))
            return found

        return await self._ask(grouped)

    async def committed(self) -> dict[tuple[str, TopicPartition], int]:
        rows = await self._ask(lambda asked: asked.all(Q["committed"]))
        return {(group, TopicPartition(topic, partition)): offset for group, topic, partition, offset in rows}

    async def page(self, fits: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        return await self._ask(lambda asked: _driven(paging.page(asked, fits, asked.kinds(), limit, after)))

    async def summaries(self, sagas: Iterable[str]) -> dict[str, Summary]:
        keys = sorted(map(key_of, sagas))
        found = await self._ask(lambda asked: asked.summaries(keys))
        return {summary.saga: summary for summary in found}

    async def counts(self) -> list[Count]:
        kinds = await self._ask(lambda asked: asked.kinds())
        return paging.counts(kinds)

    async def durations(self, type_name: str, shares: Sequence[float]) -> list[int]:
        return await self._ask(lambda asked: asked.durations(type_name, shares))

    async def beginning_with(self, prefix: str, limit: int) -> list[str]:
        return await self._ask(lambda asked: asked.beginning_with(prefix, limit))

    async def sagas_of(self, event_id: str) -> list[str]:
        return await self._ask(lambda asked: asked.sagas_of(event_id))

    async def saga_of_letter(self, letter_id: str) -> list[str]:
        return await self._ask(lambda asked: asked.letters_beginning(letter_id))

    async def data_of(self, saga: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in await self._ask(lambda asked: asked.all(Q["data_of"], (key_of(saga),))):
            found.setdefault(name, []).append(value)
        return found

    async def progress(self) -> dict[TopicPartition, Place]:
        return await self._ask(lambda asked: asked.progress())

    async def commits(self, group: str, at: TopicPartition, since: int = 0) -> list[Commit]:
        return await self._ask(lambda asked: asked.commits(group, at, since))

    async def notes(self) -> dict[str, str]:
        return dict(await self._ask(lambda asked: asked.all(Q["notes"])))

    async def _ask(self, question: Callable[[asking.Asking], T]) -> T:
        def asked() -> T:
            self._asking.check()
            return question(self._asking)

        return await self._run(self._threads[1], asked)


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it has waited")


def _close(connections: Iterable[sqlite3.Connection]) -> None:
    for each in connections:
        each.close()

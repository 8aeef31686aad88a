"""What one instance sees of the world: its log, its store, its handlers' answers; and where it can be cut off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar

from choreo.errors import StoreUnavailableError
from choreo.log.embedded.log import EmbeddedLog
from choreo.log.memory import MemoryLog
from choreo.log.port import NewRecord, TopicPartition
from choreo.log.tables import Tables
from choreo.store.port import Effects, Note, Takeover
from choreo.store.sqlite.database import is_busy, passing
from choreo.store.sqlite.store import SqliteStore

T = TypeVar("T")

POINTS = (
    *("begin", "keep", "commit", "committed", "append", "appended", "take_over", "taken_over", "release", "released"),
    *("handling", "handled"),
)
"""Where an instance may die. Before and after what the store does: opening a transaction, keeping a handler's writes, committing,
taking partitions over, releasing a parked key; before and after records are appended; inside handlers, before they write and after."""


class RefusalError(Exception):
    """A handler's way to say no that becomes a failure."""


class TroubleError(Exception):
    """What a handler raises that cannot do its work just now."""


class Script:
    """What handlers answer, by saga and handler; those that are not named do their work.

    Answers: "refuses", "raises refusal", "nothing", "stumbles" once, "fails" until `heal`.
    """

    def __init__(self, answers: Mapping[tuple[str, str], str]) -> None:
        self._answers = dict(answers)
        self._calls: Counter[tuple[str, str]] = Counter()

    def answer(self, handler: str, saga: str) -> str:
        self._calls[handler, saga] += 1
        answer = self._answers.get((handler, saga), "does")
        return "does" if answer == "stumbles" and self._calls[handler, saga] > 1 else answer

    def refuses(self, handler: str, saga: str) -> bool:
        return self._answers.get((handler, saga)) == "refuses"

    def heal(self) -> None:
        """What failed works from now on."""
        self._answers = {what: answer for what, answer in self._answers.items() if answer != "fails"}


class Network:
    """What lies between the log and its readers.

    Attributes:
        visible: where a service's view of a partition ends; those not named are seen to their ends.
        arrived: when each event came into the log first, ms since the epoch.
    """

    def __init__(self, log: MemoryLog, now_ms: Callable[[], int]) -> None:
        self.log = log
        self.visible: dict[tuple[str, TopicPartition], int] = {}
        self.arrived: dict[str, int] = {}
        self._now_ms = now_ms

    def note(self, records: list[NewRecord]) -> None:
        for record in records:
            for name, value in record.headers:
                if name == "ce_id":
                    self.arrived.setdefault(value.decode(), self._now_ms())


class Link:
    """An instance's link to log, store and script.

    Attributes:
        starting: that of the instance that is being started.
        dead: whether nothing of what it does counts any more.
        fuses: how often it still passes a point before it dies there.
        stopping: what ends it in good order, if somebody does.
        store: its store.
    """

    starting: ClassVar[Link]

    def __init__(
        self, service: str, network: Network, script: Script, chance: Random, died: Callable[[Link], None]
    ) -> None:
        self.service = service
        self.network = network
        self.dead = False
        self.fuses: dict[str, int] = {}
        self.stopping: asyncio.Task[None] | None = None
        self.store: LinkedStore
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._script = script
        self._chance = chance
        self._died = died

    async def passes(self) -> None:
        """Somebody else may come first; who is dead goes no further, and who is frozen not before it is thawed."""
        for _ in range(int(16 * self._chance.random() ** 4)):  # mostly none, now and then many
            await asyncio.sleep(0)
        if not self.store.in_transaction:  # else nobody could use the store meanwhile, and nothing would be tested
            await self._thawed.wait()
        if self.dead:
            await asyncio.get_running_loop().create_future()

    async def at(self, point: str) -> None:
        """Pass a point."""
        if point in self.fuses:
            self.fuses[point] -= 1
            if not self.fuses[point] and not self.dead:
                self.dead = True
                self._died(self)
        await self.passes()

    def freeze(self) -> None:
        """Let it stand still, as a process that gets no time."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    # --- for handlers -------------------------------------------------------------------------------------------------

    async def begin(self, handler: str, saga: str) -> str:
        """A handler is at work; its answer."""
        await self.at("handling")
        return self._script.answer(handler, saga)

    async def end(self, handler: str, saga: str, answer: str) -> None:
        """It has written."""
        await self.at("handled")
        if answer in {"stumbles", "fails"}:
            raise TroubleError(f"{handler} of {saga}")
        if answer == "raises refusal":
            raise RefusalError(f"{handler} of {saga}")

    def refuses(self, handler: str, saga: str) -> bool:
        return self._script.refuses(handler, saga)

    async def gateway(self, saga: str) -> str:
        """A call of somebody outside."""
        await self.passes()
        return f"receipt of {saga}"


class LinkedLog(EmbeddedLog):
    """The log as an instance sees it."""

    check_interval = None
    url = "memory://"

    def __init__(self, link: Link) -> None:
        super().__init__(self, self)
        self._link = link
        self._log = link.network.log
        self.consumers = self._log.consumers

    async def run(self, operation: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if operation is Tables.leave or not args:  # how the dead are buried
            return await self._log.run(operation, *args, **kwargs)
        await self._link.passes()
        if operation is Tables.fetch:
            return await self._fetch(*args)  # type: ignore[return-value]
        if operation is not Tables.write or not args[0]:
            return await self._log.run(operation, *args, **kwargs)
        await self._link.at("append")
        result = await self._log.run(operation, *args, **kwargs)
        self._link.network.note(args[0])
        await self._link.at("appended")
        return result

    async def _fetch(self, positions: Mapping[TopicPartition, int], limit: int, start: Any) -> Any:
        """What is visible."""
        visible, service = self._link.network.visible, self._link.service
        ends = {at: visible.get((service, at)) for at in positions}
        seen = {at: position for at, position in positions.items() if (end := ends[at]) is None or position < end}
        fetched = await self._log.run(Tables.fetch, seen, limit, start)
        for at, (following, records) in list(fetched.items()):
            end = ends[at]
            if end is not None and following > end:
                fetched[at] = end, [record for record in records if record.offset < end]
        return fetched


class LinkedStore(SqliteStore):
    """A store in a real file, used by one thread: who finds it locked lets others go on."""

    def __init__(self, path: Path, link: Link, peers: list[LinkedStore]) -> None:
        super().__init__(path, synchronous="off")
        self._link = link
        link.store = self
        self._peers = peers
        peers.append(self)

    @property
    def in_transaction(self) -> bool:
        return self._is_open and super().in_transaction

    async def open(self, service: str, tables: str = "") -> None:
        while any(peer.in_transaction for peer in self._peers):  # noqa: ASYNC110 - who ends it tells nobody
            await asyncio.sleep(0)
        await super().open(service, tables)

    async def close(self) -> None:
        await super().close()
        if self in self._peers:
            self._peers.remove(self)

    async def begin(self) -> None:
        await self._link.at("begin")
        while True:
            try:
                self._execute("BEGIN IMMEDIATE")
                return
            except StoreUnavailableError as error:
                if not is_busy(error.__cause__):
                    raise
            await asyncio.sleep(0)
            await self._link.passes()

    async def release_savepoint(self) -> None:
        await self._link.at("keep")
        await super().release_savepoint()

    async def commit(self, effects: Effects) -> int | None:
        await self._link.at("commit")
        row = await super().commit(effects)
        await self._link.at("committed")
        return row

    async def take_over(self, partitions: Any) -> Takeover:
        await self._link.at("take_over")
        taken = await super().take_over(partitions)
        await self._link.at("taken_over")
        return taken

    async def release(self, lane: bytes, head: str, at: TopicPartition, epoch: int) -> bool:
        await self._link.at("release")
        released = await super().release(lane, head, at, epoch)
        await self._link.at("released")
        return released

    async def seen(self, keys: Any) -> set[bytes]:
        found = await super().seen(keys)
        await self._link.passes()
        return found

    async def notes(self, keys: Any) -> dict[bytes, list[Note]]:
        found = await super().notes(keys)
        await self._link.passes()
        return found

    async def _run(self, work: Callable[[], T]) -> T:
        with passing(self._path):
            return work()

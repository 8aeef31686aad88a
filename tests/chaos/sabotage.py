"""Deliberately broken builds: each switches one guarantee off in the child processes, and has a scenario that needs it.

The patches are loaded by `tests.chaos.child`; the library knows nothing of them. What the checker must say is `shows`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from choreo.store.port import Effects, Progress
from tests.chaos.arena import GROUPS, Arena, Child
from tests.chaos.faults import locked
from tests.chaos.world import REACTIONS
from tests.servers.process import START_TIMEOUT
from tests.support import eventually


class Sabotage(NamedTuple):
    """One broken build.

    Attributes:
        apply: breaks the library in this process.
        provoke: publishes, and makes the faults that the guarantee is there for.
        shows: the kinds of findings of which at least one must be reported.
        setup: the cheapest set-up that shows it.
        pause: seconds that each handler takes.
    """

    apply: Callable[[], None]
    provoke: Callable[[Arena], Awaitable[None]]
    shows: frozenset[str]
    setup: str = "embedded"
    pause: float = 0.3


# --- offsets committed before the effect --------------------------------------------------------------------------


def _early_offsets() -> None:
    from choreo.runtime.partitions import Partition

    def progress(self: Any) -> Progress:
        return Progress(self.tracker._next, (), self.epoch)

    Partition.progress = progress  # type: ignore[method-assign]


async def _killed_at_work(arena: Arena) -> None:
    """All processes die while handlers are under way."""
    for _ in range(3):
        await arena.feed.publish(30)
        await asyncio.sleep(0.4)
    for child in arena.children:
        child.kill()
    for child in arena.children:
        child.start()


# --- inbox off ----------------------------------------------------------------------------------------------------


def _inbox_off() -> None:
    from choreo.runtime.unit import UnitOfWork
    from choreo.store.sqlite import store

    async def seen(self: Any, keys: Any) -> set[bytes]:
        return set()

    store.SqliteStore.seen = seen  # type: ignore[method-assign]
    inserts = "INSERT INTO choreo_inbox"
    assert inserts in store._Q["write_unit"]
    store._Q["write_unit"] = store._Q["write_unit"].replace(inserts, "INSERT OR IGNORE INTO choreo_inbox")
    UnitOfWork.is_pending = lambda self, key: False  # type: ignore[method-assign]


async def _published_twice(arena: Arena) -> None:
    """A producer repeats itself, later."""
    await arena.feed.publish(30)
    await arena.calm()
    await arena.feed.repeat(10)


# --- outbox off ---------------------------------------------------------------------------------------------------


def _outbox_off() -> None:
    from choreo.store.sqlite.store import SqliteStore

    real, rows = SqliteStore.commit, iter(range(-1, -1_000_000, -1))

    async def commit(self: Any, effects: Effects) -> int | None:
        await real(self, effects._replace(outbox=(), ticked=[row for row in effects.ticked if row > 0]))
        return next(rows) if effects.outbox else None  # published from memory, as ever

    SqliteStore.commit = commit  # type: ignore[method-assign]


async def _killed_while_the_log_is_stuck(arena: Arena) -> None:
    """Effects are committed, the log takes no records, and the processes die."""
    await arena.feed.publish(30)
    async with locked(arena.file_of("log")):
        before = arena.effects("intake")
        await eventually(lambda: arena.effects("intake") > before)
        for child in arena.children:
            child.kill()
    for child in arena.children:
        child.start()


# --- fencing off --------------------------------------------------------------------------------------------------


def _fencing_off() -> None:
    from choreo.log.embedded.consumer import EmbeddedConsumer
    from choreo.log.groups import Group

    async def lose(self: Any, partitions: Any) -> None:
        """An expelled member hears nothing of it."""

    EmbeddedConsumer._lose = lose  # type: ignore[method-assign]
    Group.owns = lambda self, member, partition, generation: True  # type: ignore[method-assign]


async def _woken_zombies(arena: Arena) -> None:
    """Instances stand still with work in their hands, until others have done it; then they go on."""
    sleepers = arena.children[: len(GROUPS)]
    for child in sleepers:
        await _freeze_at_work(arena, child)

    async def is_done() -> bool:
        return await arena.size() >= len(arena.feed.published) * len(REACTIONS)

    await eventually(is_done, patience=START_TIMEOUT)
    for child in sleepers:
        child.thaw()


async def _freeze_at_work(arena: Arena, child: Child) -> None:
    """Stop a process within a handler, but not while it holds the log's lock: nobody else could go on."""

    def is_called() -> bool:
        return arena.calls(child) > before

    while True:
        before = arena.calls(child)
        await arena.feed.publish(40)
        await eventually(is_called)
        child.freeze()
        with contextlib.suppress(AssertionError):
            async with locked(arena.file_of("log"), patience=1.0):
                return
        child.thaw()


# --- parking off --------------------------------------------------------------------------------------------------


def _parking_off() -> None:
    from choreo.runtime.unit import UnitOfWork

    UnitOfWork.park = lambda self, park: None  # type: ignore[method-assign]


async def _retried_late(arena: Arena) -> None:
    """Some events have to go to the retry topic; few enough to keep circuit breakers closed."""
    for _ in range(4):
        await arena.feed.publish(40, "plain")
        await arena.feed.publish(5, "long")
    await arena.feed.publish(40, "plain")


# --- revoke not awaited -------------------------------------------------------------------------------------------


def _revoke_not_awaited() -> None:
    from choreo.runtime.ownership import Ownership

    async def let_finish(self: Any, leaving: Any) -> None:
        """Their handlers go on, whoever comes next."""

    Ownership.let_finish = let_finish  # type: ignore[method-assign]


_PACE = 0.4
"""Seconds between two publishings that leave always work under way: each event keeps three handlers busy, one after the other."""


async def _polite_hand_overs(arena: Arena) -> None:
    """Instances come and go in good order, at work: no handler run may be in vain."""
    for _ in range(4):
        with arena.child(GROUPS[0]) as first, arena.child(GROUPS[1]) as second:
            async with asyncio.timeout(START_TIMEOUT):
                while not (first.has_partitions() and second.has_partitions()):
                    await arena.feed.publish(20)
                    await asyncio.sleep(_PACE)
            for _ in range(2):
                await arena.feed.publish(20)
                await asyncio.sleep(_PACE)
            await asyncio.gather(asyncio.to_thread(first.stop), asyncio.to_thread(second.stop))


SABOTAGES = {
    "early-offsets": Sabotage(_early_offsets, _killed_at_work, frozenset({"lost"})),
    "inbox-off": Sabotage(_inbox_off, _published_twice, frozenset({"doubled"}), pause=0.01),
    "outbox-off": Sabotage(_outbox_off, _killed_while_the_log_is_stuck, frozenset({"lost"})),
    "fencing-off": Sabotage(_fencing_off, _woken_zombies, frozenset({"doubled"}), setup="embedded-transactional"),
    "parking-off": Sabotage(_parking_off, _retried_late, frozenset({"order"}), pause=0.01),
    "revoke-not-awaited": Sabotage(_revoke_not_awaited, _polite_hand_overs, frozenset({"calls"})),
}

"""One function a kind of fault: it strikes, holds for a while, and heals what does not heal by itself."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.chaos.arena import GROUPS, Arena, Child, Setup
from tests.servers.process import Server
from tests.support import PATIENCE, eventually


class Strike(NamedTuple):
    """One planned fault.

    Attributes:
        at: seconds after the start; it comes later if the one before on its track lasts.
        pick: from 0 up to 1; chooses the victim.
        hold: seconds that it lasts.
    """

    at: float
    kind: str
    pick: float
    hold: float

    def __str__(self) -> str:
        return f"{self.at:6.1f}s {self.kind} pick={self.pick:.3f} hold={self.hold:.2f}s"


class Fault(NamedTuple):
    """A kind of fault.

    Attributes:
        hold: the shortest and the longest time it lasts, in seconds.
        slow: whether it takes many seconds in all; those have a track of their own.
        applies: where it can be made.
    """

    strike: Callable[[Arena, Strike], Awaitable[None]]
    hold: tuple[float, float]
    slow: bool
    applies: Callable[[Setup], bool]


def _victim(arena: Arena, strike: Strike) -> Child:
    return arena.children[int(strike.pick * len(arena.children))]


async def _kill(arena: Arena, strike: Strike) -> None:
    """An instance ends at once, and is started again."""
    victim = _victim(arena, strike)
    victim.kill()
    await asyncio.sleep(strike.hold)
    victim.start()


async def _zombie(arena: Arena, strike: Strike) -> None:
    """An instance stands still for longer than its session, and goes on as if nothing had been."""
    victim = _victim(arena, strike)
    victim.freeze()
    await asyncio.sleep(strike.hold)
    victim.thaw()


async def _storm(arena: Arena, strike: Strike) -> None:
    """Instances come and go every second, politely or not."""
    clock = asyncio.get_running_loop()
    end, count = clock.time() + strike.hold, 0
    while clock.time() < end:
        count += 1
        with arena.child(GROUPS[(count + int(strike.pick * 2)) % 2]) as guest:
            await asyncio.sleep(1.0)
            if count % 3:
                await asyncio.to_thread(guest.stop)


async def _duplicate(arena: Arena, strike: Strike) -> None:
    """A producer publishes events again, under their ids."""
    await arena.feed.repeat(1 + int(strike.pick * 20))


async def _copy(arena: Arena, strike: Strike) -> None:
    """Records that services have emitted lie in the log once more."""
    await arena.feed.copy(1 + int(strike.pick * 20))


async def _clock(arena: Arena, strike: Strike) -> None:
    """An instance's clock jumps by up to ten minutes, and back."""
    victim = _victim(arena, strike)
    victim.clock.write_text(str(round((strike.pick * 7919 % 1 - 0.5) * 1200, 3)))
    await asyncio.sleep(strike.hold)
    victim.clock.write_text("0")


async def _full_disk(arena: Arena, strike: Strike) -> None:
    """An instance's files cannot be written beyond their first 4,096 bytes: stores fail, and so do embedded logs."""
    victim = _victim(arena, strike)
    if victim.is_running:
        no_limit = resource.RLIM_INFINITY
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (4096, no_limit))
            await asyncio.sleep(strike.hold)
            resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (no_limit, no_limit))


async def _slow_disk(arena: Arena, strike: Strike) -> None:
    """Another program holds the write lock of a store or of the embedded log."""
    names = [*arena.setup.stores, *(["log"] if arena.setup.log == "sqlite" else [])]
    async with locked(arena.file_of(names[int(strike.pick * len(names))])):
        await asyncio.sleep(strike.hold)


@contextlib.asynccontextmanager
async def locked(file: Path, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Hold the write lock of a store, or of the embedded log; AssertionError if it is not to be had for so long."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as locker:

        def taken() -> bool:
            with contextlib.suppress(sqlite3.OperationalError):
                locker.execute("BEGIN IMMEDIATE")
            return locker.in_transaction

        await eventually(taken, patience=patience)
        yield  # closing it gives the lock back


async def _cut(arena: Arena, strike: Strike) -> None:
    """All connections to a server are reset."""
    proxy = arena.proxies[int(strike.pick * len(arena.proxies))]
    await asyncio.to_thread(proxy.cut)


async def _outage(arena: Arena, strike: Strike) -> None:
    """A server cannot be reached: refused, or in silence."""
    proxy = arena.proxies[int(strike.pick * 7919 % 1 * len(arena.proxies))]
    await asyncio.to_thread(proxy.refuse if strike.pick < 0.5 else proxy.black_hole)
    await asyncio.sleep(strike.hold)
    await asyncio.to_thread(proxy.restore)


async def _broker(arena: Arena, strike: Strike) -> None:
    """The broker, or one of three (mostly the leader of some partition), is killed and started again."""
    server: Server
    if arena.cluster is not None:
        topics = ["chaos.placed", "chaos.charge", "chaos.paid", "__consumer_offsets", "__transaction_state"]
        server = arena.cluster.nodes[int(strike.pick * 3)]
        with contextlib.suppress(KeyError, StopIteration):
            server = await asyncio.to_thread(arena.cluster.leader_of, topics[int(strike.pick * len(topics))])
    else:
        assert arena.kafka is not None
        server = arena.kafka
    server.kill()
    await asyncio.sleep(strike.hold)
    await asyncio.to_thread(arena.cluster.ensure_running if arena.cluster else server.start)


async def _frozen_broker(arena: Arena, strike: Strike) -> None:
    """A broker stands still, as one does whose disk does not answer."""
    server = arena.cluster.nodes[int(strike.pick * 3)] if arena.cluster else arena.kafka
    assert server is not None
    server.freeze()
    await asyncio.sleep(strike.hold)
    server.thaw()


async def _postgres(arena: Arena, strike: Strike) -> None:
    """PostgreSQL ends at once, and is started again."""
    assert arena.postgres is not None
    arena.postgres.kill()
    await asyncio.sleep(strike.hold)
    await asyncio.to_thread(arena.postgres.start)


def _anywhere(setup: Setup) -> bool:
    return True


def _on_kafka(setup: Setup) -> bool:
    return setup.log != "sqlite"


def _with_proxies(setup: Setup) -> bool:
    return _on_kafka(setup) or setup.store == "postgres"


def _with_files(setup: Setup) -> bool:
    return setup.store == "sqlite"


FAULTS: Mapping[str, Fault] = {
    "kill": Fault(_kill, (0.0, 0.5), False, _anywhere),
    "duplicate": Fault(_duplicate, (0, 0), False, _anywhere),
    "copy": Fault(_copy, (0, 0), False, lambda setup: not setup.transactional),
    "clock": Fault(_clock, (0.5, 2.0), False, _anywhere),
    "full-disk": Fault(_full_disk, (0.5, 2.0), False, _with_files),
    "slow-disk": Fault(_slow_disk, (0.5, 3.0), False, _with_files),
    "cut": Fault(_cut, (0, 0), False, _with_proxies),
    "zombie": Fault(_zombie, (4.5, 7.0), True, _anywhere),
    "storm": Fault(_storm, (3.0, 6.0), True, _anywhere),
    "outage": Fault(_outage, (1.0, 5.0), True, _with_proxies),
    "broker": Fault(_broker, (0.0, 3.0), True, _on_kafka),
    "frozen-broker": Fault(_frozen_broker, (1.0, 5.0), True, _on_kafka),
    "postgres": Fault(_postgres, (0.0, 3.0), True, lambda setup: setup.store == "postgres"),
}


async def strike_all(arena: Arena, strikes: list[Strike], made: list[Strike]) -> None:
    """Make these faults, one after the other, none before its time."""
    clock = asyncio.get_running_loop()
    begun = clock.time()
    for strike in strikes:
        await asyncio.sleep(max(0.0, begun + strike.at - clock.time()))
        await FAULTS[strike.kind].strike(arena, strike)
        made.append(strike)

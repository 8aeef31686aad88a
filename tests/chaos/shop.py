"""Chaos in the shop: orders flow, a fifth of them bad, while processes, brokers and databases die; then the books are compared.

python -m tests.chaos --flow shop --orders 10000 --setup kafka-postgres --seed 7
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from choreo import Bus
from choreo.errors import LogError, WireError
from choreo.wire.ids import new_event_id
from services.shop.audit import ended, open_stores
from services.shop.events import OrderPlaced
from services.shop.model import books_of
from services.shop.orders_generator import orders as sample
from tests.chaos.arena import Setup
from tests.chaos.shop_arena import ShopArena

_AT_ONCE = 20
_OPEN = 400
"""Orders under way at most: no order comes near its time limit because of others."""
_TWICE = 0.05
"""The share of orders that a producer publishes twice."""
_AGAIN = 0.2


class Strike(NamedTuple):
    """A planned fault.

    Attributes:
        at: the share of orders that have ended by then.
        kind: "kill" (of a process), "broker" or "database" (killed and started again).
        pick: from 0 up to 1; chooses the victim.
        hold: seconds until it is started again.
    """

    at: float
    kind: str
    pick: float
    hold: float


class Outcome(NamedTuple):
    """How a round ended."""

    outcomes: Counter[str]
    faults: Counter[str]
    twice: int
    seconds: float
    findings: list[str]
    logs: str

    def text(self) -> str:
        """What was done and found, in lines."""
        orders = self.outcomes.total()
        ways = ", ".join(f"{name} {count:,}" for name, count in sorted(self.outcomes.items()))
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        found = "\n".join(self.findings) or "no findings"
        rate = f"{orders / self.seconds:.0f} orders a second"
        return f"{orders:,} orders ({ways}), {self.twice} of them twice\nfaults: {faults}\n{self.seconds:.0f} s, {rate}\n{found}"


def plan(setup: Setup, seed: int, kills: int) -> list[Strike]:
    """So many kills of processes, and an eighth of that of each server's."""
    draw = Random(seed)
    servers = (["broker"] if setup.log == "kafka" else []) + (["database"] if setup.store == "postgres" else [])
    kinds = ["kill"] * kills + [kind for kind in servers for _ in range(max(1, kills // 8))]
    return sorted(
        Strike(round(draw.uniform(0.02, 0.95), 3), kind, draw.random(), round(draw.uniform(0.1, 3), 2))
        for kind in kinds
    )


async def chaos(setup: Setup, seed: int, orders: int, kills: int, *, patience: float = 120) -> Outcome:
    """One round."""
    placed = sample(seed, orders)
    folder = Path(tempfile.mkdtemp(prefix="choreo-chaos-shop-"))
    try:
        async with ShopArena(setup, folder) as arena:
            begun = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(feed(arena, placed, Random(seed)))
                striking = group.create_task(strike_all(arena, plan(setup, seed, kills), orders))
            findings = await arena.findings(books_of(placed), patience)
            seconds = asyncio.get_running_loop().time() - begun
            with open_stores(arena.settings.store) as stores:
                outcomes = Counter(str(outcome) for outcome in ended(stores).values())
            logs = arena.troubles() if findings else ""
            if findings and (keep := os.environ.get("CHOREO_CHAOS_KEEP")):
                _keep(arena, Path(keep))
            return Outcome(outcomes, striking.result(), feeding.result(), seconds, findings, logs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def feed(arena: ShopArena, placed: list[OrderPlaced], draw: Random) -> int:
    """Place the orders, some of them twice, as fast as others end; returns how many came twice."""
    twice = 0
    for start in range(0, len(placed), _AT_ONCE):
        await arena.until_ended(start - _OPEN)
        named = [(order, new_event_id()) for order in placed[start : start + _AT_ONCE]]
        again = [pair for pair in named if draw.random() < _TWICE]
        twice += len(again)
        await asyncio.gather(*(_until_acknowledged(arena.bus, *pair) for pair in named + again))
    return twice


async def _until_acknowledged(bus: Bus, order: OrderPlaced, event_id: str) -> None:
    while True:
        try:
            await bus.publish(order, event_id=event_id)
            return
        except (LogError, WireError):  # the broker is away
            await asyncio.sleep(_AGAIN)


async def strike_all(arena: ShopArena, strikes: list[Strike], orders: int) -> Counter[str]:
    """Let each fault come in its turn; returns how many of each kind there were."""
    made: Counter[str] = Counter()
    for strike in strikes:
        await arena.until_ended(strike.at * orders)
        await _strike(arena, strike)
        made[strike.kind] += 1
        print(f"{arena.ended:>6,} orders ended: {strike.kind}", file=sys.stderr)  # noqa: T201 - how far it is
    return made


async def _strike(arena: ShopArena, strike: Strike) -> None:
    victim = arena.processes[int(strike.pick * len(arena.processes))]
    server = victim if strike.kind == "kill" else arena.server(strike.kind)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(strike.hold)
    await arena.start(server)


def _keep(arena: ShopArena, where: Path) -> None:
    """All there is of evidence."""
    shutil.copytree(arena.folder, where, dirs_exist_ok=True)
    for process in (*arena.processes, *filter(None, (arena.kafka, arena.database))):
        shutil.copy(process.log_file, where / f"{process.folder.name}.log")

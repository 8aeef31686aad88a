"""Another process at the same store: `python -m tests.conformance.store.member <open|write> URL`."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from choreo.store import Effects
from tests.conformance.store.world import P0, World, emitted, key, progress

ROWS = 3
"""User rows that each transaction of `write` makes."""


async def open_it(world: World) -> None:
    """Open the store once, as soon as a line comes in: all members begin together."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    await world.open()
    await world.close()


async def write(world: World) -> None:
    """Transactions for ever, each with user rows, progress, an inbox key and an outbox row, all of the same number."""
    store = await world.open()
    taken = (await store.take_over([P0])).progress
    epoch, begin = taken[P0].epoch, max(taken[P0].watermark, 0)
    for number in count(begin):
        names = [f"{number}-{row}" for row in range(ROWS)]
        effects = Effects({P0: progress(epoch, number + 1)}, [key(number)], emitted(str(number).encode()))
        await world.write(store, names, effects)
        if number == begin:
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    place = World(sys.argv[2], sys.argv[3])
    asyncio.run({"open": open_it, "write": write}[sys.argv[1]](place))

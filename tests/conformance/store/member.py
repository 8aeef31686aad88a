"""Another process at the same store: `python -m tests.conformance.store.member <open|write> URL`."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from choreo.log.port import Record
from choreo.store import Effects, NewNote, Note, Timer
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
    """Transactions for ever, each with user rows, progress, an inbox key, an outbox row, a note and a timer of the same number.

    Each ends the timer of the one before.
    """
    store = await world.open()
    taken = (await store.take_over([P0])).progress
    epoch, begin = taken[P0].epoch, max(taken[P0].watermark, 0)
    for number in count(begin):
        names = [f"{number}-{row}" for row in range(ROWS)]
        timer = Timer(key(number), P0, number, "expire", Record("orders", 0, number, 0, b"", b"", []))
        effects = Effects(
            {P0: progress(epoch, number + 1)}, [key(number)], emitted(str(number).encode()),
            notes=[NewNote(key(number), Note(0, "done", b"content"), 0), NewNote(key(0), Note(number + 1, "last", b""), 0)],
            timers=[timer], unset=[key(number - 1)] if number else [],
        )  # fmt: skip
        await world.write(store, names, effects)
        if number == begin:
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    place = World(sys.argv[2], sys.argv[3])
    asyncio.run({"open": open_it, "write": write}[sys.argv[1]](place))

"""A store that is kept in order while its service runs: what is old enough goes."""

from __future__ import annotations

import pytest

from choreo import Service
from choreo.store import Effects, NewNote, Note
from choreo.store.sqlite.store import SqliteStore
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_world import Placed
from tests.support import eventually


@pytest.fixture
def clock(monkeypatch) -> TurnedClock:
    """The clock of instances started from now on."""
    turned = TurnedClock()
    monkeypatch.setattr("choreo.runtime.instance.SystemClock", lambda: turned)
    return turned


async def test_inbox_keys_that_are_old_enough_go(memory_world, clock):
    service = Service("payments")

    @service.on(Placed)
    async def pay(order: Placed) -> None: ...

    def inbox() -> int:
        return len(memory_world.rows("payments", "SELECT * FROM choreo_inbox"))

    async with memory_world.running(service, inbox_keep="7d") as instances:
        await memory_world.publish(*(Placed(id=f"k{n}") for n in range(30)))
        await memory_world.read_to_the_end(service)
        assert inbox() == 30
        long = 20 * 365 * 86_400  # the store's own clock has noted them, and tells today's time
        clock.turn(long)
        await eventually(lambda: inbox() == 0)
        assert instances["payments"].stats.handled == 30


async def test_notes_of_sagas_go_some_time_after_they_last_mattered(memory_world, clock):
    service = Service("payments")

    @service.on(Placed)
    async def pay(order: Placed) -> None: ...

    day, now = 86_400_000, clock.now_ms()
    keys = {keep: keep.to_bytes(16, "big") for keep in (now - 25 * day, now, now + 20 * day)}
    async with memory_world.running(service, saga_keep="30d"):
        store = SqliteStore(memory_world.folder / "payments.db")
        await store.open("payments")
        notes = [NewNote(key, Note(0, "done", b""), keep) for keep, key in keys.items()]
        await store.commit(Effects({}, notes=[*notes, notes[0]._replace(note=Note(1, "undone", b""))]))

        async def kept() -> list[int]:
            clock.turn(3600)  # it may not have been asleep when the days passed
            found = await store.notes(list(keys.values()))
            return [keep for keep, key in keys.items() if key in found]

        for days, left in ((10, 2), (25, 1), (30, 0)):
            clock.turn(days * 86_400)

            async def is_so(left: int = left) -> bool:
                return await kept() == list(keys)[3 - left :]

            await eventually(is_so)
        await store.close()

"""What is known of sagas: one memory a key as long as somebody holds it, read anew after that."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any, cast

from choreo.runtime.sagas.memory import Memories
from choreo.store.port import Note, Store

A, B, C = (name * 16 for name in (b"a", b"b", b"c"))
NOTE = Note(0, "done", b"")


class Slow:
    """A store that answers when it is told to; `asked` is what it was asked for."""

    def __init__(self, **noted: list[Note]) -> None:
        self.noted = {name.encode() * 16: notes for name, notes in noted.items()}
        self.asked: list[list[bytes]] = []
        self.answers: list[asyncio.Event] = []

    async def notes(self, keys: Sequence[bytes]) -> dict[bytes, list[Note]]:
        self.asked.append(list(keys))
        self.answers.append(asyncio.Event())
        found = {key: self.noted[key] for key in keys if key in self.noted}
        await self.answers[-1].wait()
        return found

    def answer(self) -> None:
        for answer in self.answers:
            answer.set()


def of(store: Any) -> Memories:
    return Memories(cast("Store", store))


async def asking(memories: Memories, *askings: list[bytes]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(memories.of(keys)) for keys in askings]
    await asyncio.sleep(0)
    return tasks


async def test_a_key_that_is_asked_for_twice_is_read_once_and_has_one_memory():
    store = Slow(a=[NOTE])
    store.noted[B] = []
    (task,) = await asking(of(store), [A, B, A])
    store.answer()
    first, second, third = await task
    assert first is third
    assert [first.key, second.key] == [A, B]
    assert [first.notes, second.notes] == [[NOTE], []]
    assert store.asked == [[A, B]]


async def test_two_that_read_at_the_same_time_get_the_same_memory():
    store = Slow()
    memories = of(store)
    one, two = await asking(memories, [A, B], [C, B])
    store.answer()
    a, first = await one
    c, second = await two
    assert first is second
    assert (a.key, c.key) == (A, C)


async def test_what_nobody_holds_any_more_is_read_again():
    store = Slow()
    memories = of(store)
    (task,) = await asking(memories, [A])
    store.answer()
    (held,) = await task
    held.add("done", b"", 0)
    (same,) = await memories.of([A])
    assert same is held
    store.noted[A] = [NOTE]
    del held, same, task
    (task,) = await asking(memories, [A])
    store.answer()
    assert [memory.notes for memory in await task] == [[NOTE]]


async def test_what_was_known_before_a_wait_is_given_though_all_is_forgotten_meanwhile():
    store = Slow()
    memories = of(store)
    (task,) = await asking(memories, [A])
    store.answer()
    known = await task
    (task,) = await asking(memories, [A, B])
    memories.forget()
    store.answer()
    again, other = await task
    assert again is known[0]
    assert other.key == B
    (task,) = await asking(memories, [A])
    store.answer()
    assert (await task)[0] is not known[0]


async def test_a_memory_of_somebody_faster_stays_though_it_is_garbage_to_others(monkeypatch):
    store = Slow()
    memories = of(store)
    mine, theirs = await asking(memories, [A, B], [B])
    store.answers[1].set()
    (faster,) = await theirs
    circle: list[Any] = [faster]
    circle.append(circle)
    del circle, faster, theirs
    make_room = memories._make_room
    monkeypatch.setattr(memories, "_make_room", lambda: (gc.collect(), make_room()))
    store.answer()
    assert [memory.key for memory in await mine] == [A, B]


async def test_memories_that_are_gone_take_no_room():
    store = Slow()
    memories = of(store)
    for first in range(0, 40_000, 100):
        (task,) = await asking(memories, [number.to_bytes(16) for number in range(first, first + 100)])
        store.answer()
        assert len(await task) == 100
        del task
    assert len(memories._held) < 5_000

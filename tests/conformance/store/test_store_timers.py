"""What every store promises about timers, and about how far other partitions are done."""

from __future__ import annotations

import pytest

from choreo.log.port import Record, TopicPartition
from choreo.store import Effects, Store, Timer
from tests.conformance.store.world import P0, P1, P2, key, own, progress

FOREVER = 2**53


def record(offset: int = 1) -> Record:
    return Record(
        "orders", 0, offset, 1_700_000_000_000, b"key", b"value" * offset, [("ce_id", b"1"), ("ce_id", b"\xff")]
    )


def timer(number: int, due: int, at: TopicPartition = P0, handler: str = "expire") -> Timer:
    return Timer(key(number), at, due, handler, record(number))


async def put(store: Store, *timers: Timer, unset: tuple[bytes, ...] = ()) -> None:
    await store.commit(Effects({}, timers=timers, unset=unset))


async def due(store: Store, *partitions: TopicPartition, before: int = FOREVER, limit: int = 100) -> list[int]:
    """The numbers of those timers."""
    return [int.from_bytes(each.timer_id, "big") for each in await store.due(partitions, before, limit)]


async def test_timers_come_back_as_they_were(world, store):
    timers = [
        Timer(key(1), P0, 1, "größer", Record("größer", 3, 2**40, -1, None, None, [])),
        Timer(key(2), P0, 2, 'a "\\,{}', record(7)),
        Timer(key(3), P0, 2**52, "", Record("t", 0, 0, 0, b"", bytes(100_000), [("a", b"")])),
    ]
    await put(store, *timers)
    found = await (await world.open()).due([P0], FOREVER, 10)
    assert found == timers
    assert type(found[0].at) is TopicPartition
    assert type(found[1].record.headers[0]) is tuple


async def test_what_is_due_comes_earliest_first_of_these_partitions_and_no_more_than_asked(store):
    await put(store, timer(1, 50), timer(2, 10, P1), timer(3, 30), timer(4, 20, P2), timer(5, 40, P1), timer(6, 60))
    assert await due(store, P0, P1, P2) == [2, 4, 3, 5, 1, 6]
    assert await due(store, P1, P0) == [2, 3, 5, 1, 6]
    assert await due(store, P0, P1, P2, limit=3) == [2, 4, 3]
    assert await due(store, P0, P1, before=40) == [2, 3], "before, not at"
    assert await due(store, P0, P1, before=41) == [2, 3, 5]
    assert await due(store, P0, before=30) == []
    assert await due(store) == []
    assert await due(store, TopicPartition("payments", 0)) == [], "the same number of another topic"


async def test_the_next_one_is_known_without_those_of_other_partitions(store):
    assert await store.next_due([P0]) is None
    await put(store, timer(1, 50), timer(2, 10, P1), timer(3, 30), timer(4, 20, P2))
    assert await store.next_due([P0]) == 30
    assert await store.next_due([P0, P2]) == 20
    assert await store.next_due([P2, P1, P0]) == 10
    assert await store.next_due([]) is None
    assert await store.next_due([TopicPartition("payments", 1)]) is None
    assert await store.pending([P0, P2]) == (3, 20)
    assert await store.pending([P1]) == (1, 10)
    assert await store.pending([TopicPartition("payments", 1)]) == await store.pending([]) == (0, None)


async def test_a_timer_that_is_set_again_is_replaced(store):
    await put(store, timer(1, 10), timer(2, 20))
    again = timer(1, 90, P1, "remind")._replace(record=record(5))
    await put(store, again)
    assert await due(store, P0) == [2]
    assert await store.due([P1], FOREVER, 10) == [again]
    await put(store, timer(2, 30), timer(3, 1), timer(2, 5, P2))
    assert await store.due([P0, P2], FOREVER, 10) == [timer(3, 1), timer(2, 5, P2)]


async def test_a_timer_that_is_done_with_is_gone_and_one_that_is_not_there_is_passed_over(store):
    await put(store, timer(1, 10), timer(2, 20), timer(3, 30))
    await put(store, timer(4, 40), unset=(key(1), key(77), key(3), key(1)))
    assert await due(store, P0) == [2, 4]
    await put(store, unset=(key(2), key(4)))
    assert await due(store, P0) == []
    assert await store.next_due([P0]) is None


async def test_many_timers_of_one_transaction_find_their_own_records(store):
    timers = [Timer(key((n * 7919) % 1000), P0, n, f"h{n % 3}", record(n % 50)) for n in range(1000)]
    await put(store, *timers)
    assert await store.due([P0], FOREVER, 2000) == timers
    await put(store, unset=tuple(each.timer_id for each in timers[::2]))
    assert await store.due([P0], FOREVER, 2000) == timers[1::2]


@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_timers_are_looked_for_while_others_write(world, store, end):
    await put(store, timer(1, 10))
    other = await world.open()
    await other.begin()
    await world.put(other, "open")
    assert await due(store, P0) == [1]
    assert await store.next_due([P0]) == 10
    assert await store.watermarks([P0]) == {}
    await (other.rollback() if end == "rollback" else other.commit(Effects({}, timers=[timer(2, 5)], unset=[key(1)])))
    assert await due(store, P0) == ([1] if end == "rollback" else [2])


async def test_how_far_partitions_are_done_is_known_whoever_owns_them(world, store):
    mine = await own(store, P0)
    other = await world.open()
    await other.take_over([P1, P2])
    asked = [P2, P1, P0, TopicPartition("payments", 0)]
    assert await store.watermarks(asked) == {}
    await store.commit(Effects({P0: progress(mine, 7, (9, 12))}))
    epoch = await own(other, P1)
    await other.commit(Effects({P1: progress(epoch, 0)}))
    assert await store.watermarks(asked) == await other.watermarks(asked) == {P0: 7, P1: 0}
    assert await store.watermarks([P1]) == {P1: 0}
    assert await store.watermarks([]) == {}

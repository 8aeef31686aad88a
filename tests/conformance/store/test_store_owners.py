"""What every store promises about owners that died, the inbox that is cleaned, and rows that nobody published."""

from __future__ import annotations

import asyncio
import time

from choreo.log.port import TopicPartition
from choreo.store import Effects, Store
from tests.conformance.store.world import P0, P1, World, emitted, key, own, progress


async def died(world: World, partition: TopicPartition = P0, suspect: int | None = None) -> None:
    """An owner that never gives back."""
    store = await world.open()
    await own(store, partition)
    if suspect is not None:
        await store.suspect(partition, suspect)
    await store.close()


async def found(store: Store, partition: TopicPartition = P0) -> tuple[int, dict[int, int]]:
    """Deaths and suspects, as a new owner learns of them."""
    known = (await store.take_over([partition])).progress[partition]
    return known.deaths, dict(known.suspects)


def now() -> int:
    return int(time.time() * 1000)


# --- owners that died -------------------------------------------------------------------------------------------------


async def test_owners_that_never_gave_back_are_counted_each_partition_on_its_own(world):
    await died(world)
    await died(world)
    await died(world, P1)
    taken = (await (await world.open()).take_over([P0, P1])).progress
    assert [known.deaths for known in taken.values()] == [2, 1]


async def test_who_gives_back_in_good_order_has_not_died(world):
    first = await world.open()
    epoch = await own(first, P0)
    await first.suspect(P0, 7)
    await first.give_back({P0: epoch})
    assert await found(await world.open()) == (0, {})


async def test_giving_back_what_another_has_taken_over_changes_nothing(world, store):
    epoch = await own(store, P0)
    await died(world)
    await store.give_back({P0: epoch, P1: 1})
    assert (await found(store))[0] == 2, "the store's own, and the one that died"


async def test_an_owner_that_takes_over_from_itself_has_not_died(store):
    await own(store, P0)
    await store.suspect(P0, 7)
    assert await found(store) == (0, {})


async def test_suspects_are_counted_when_an_owner_dies(world, store):
    await died(world, suspect=7)
    await died(world, suspect=9)
    await died(world, suspect=7)
    assert await found(store) == (3, {7: 2, 9: 1})


async def test_only_the_last_record_that_was_handled_alone_is_suspected(world):
    first = await world.open()
    epoch = await own(first, P0)
    for offset in (4, 5, 6):
        await first.suspect(P0, offset)
    await first.close()
    assert await found(await world.open()) == (1, {6: 1})
    assert epoch == 1


async def test_a_zombie_suspects_nothing(world, store):
    await own(store, P0)
    await own(await world.open(), P0)
    await store.suspect(P0, 7)
    assert await found(await world.open()) == (2, {})


async def test_who_has_come_past_what_killed_others_forgets_them(world, store):
    await died(world, suspect=7)
    await died(world, suspect=7)
    known = (await store.take_over([P0, P1])).progress[P0]
    assert known.deaths == 2
    await store.suspect(P0, 8)
    await store.commit(Effects({P0: progress(known.epoch, 10)}, survived=[P0]))
    await store.close()
    assert await found(await world.open()) == (1, {}), "its own death counts from there"


async def test_suspects_that_progress_has_passed_are_forgotten(world, store):
    await died(world, suspect=7)
    await died(world, suspect=9)
    epoch = await own(store, P0)
    await store.commit(Effects({P0: progress(epoch, 8)}))
    assert (await found(store))[1] == {9: 1}


# --- the inbox is cleaned ---------------------------------------------------------------------------------------------


async def walk(store: Store, before_ms: int, limit: int = 10) -> int:
    """Clean the whole inbox; returns the number of chunks."""
    after, chunks = b"", 0
    while True:
        after = await store.expire(before_ms, after, limit)
        chunks += 1
        if not after:
            return chunks


async def test_old_keys_go_and_new_ones_stay(store):
    old, new = [key(number) for number in range(0, 60, 2)], [key(number) for number in range(1, 60, 2)]
    await store.commit(Effects({}, old))
    between = now() + 1
    await asyncio.sleep(0.01)  # the clock moves on
    await store.commit(Effects({}, new))
    assert await walk(store, between) == 7, "60 keys, 10 at a time, and the end"
    assert await store.seen(old + new) == set(new)
    await walk(store, now() + 1)
    assert await store.seen(new) == set()


async def test_an_empty_inbox_is_at_its_end(store):
    assert await store.expire(now(), b"", 10) == b""


async def test_the_inbox_is_cleaned_beside_another_instances_work(world, store):
    await store.commit(Effects({}, [key(1)]))
    other = await world.open()
    await world.write(other, ["a"], Effects({}, [key(2)]))
    await walk(store, now() + 1, 1)
    assert await other.seen([key(1), key(2)]) == set()


# --- outside writers --------------------------------------------------------------------------------------------------


async def test_rows_of_outside_writers_are_found_when_they_are_old_enough(world, store):
    epoch = await own(store, P0)
    outside = await world.open()
    first = await outside.commit(Effects({}, outbox=emitted(b"1")))
    second = await outside.commit(Effects({}, outbox=emitted(b"2")))
    await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"read from a partition")))
    assert await store.abandoned(now() - 60_000) == []
    assert [(row.row_id, row.records) for row in await store.abandoned(now() + 1)] == [
        (first, emitted(b"1")),
        (second, emitted(b"2")),
    ]
    assert await outside.abandoned(now() + 1) == [], "it publishes them itself"
    await store.commit(Effects({}, ticked=[first]))
    assert [row.row_id for row in await store.abandoned(now() + 1)] == [second]


async def test_rows_of_outside_writers_come_with_no_partition(store, world):
    await store.commit(Effects({}, outbox=emitted(b"1")))
    assert await world.leftovers(P0) == []

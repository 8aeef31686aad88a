"""What every store promises about keys that are parked, and the records that wait behind them."""

from __future__ import annotations

import asyncio

import pytest

from choreo.errors import FencedError, ReleasedError
from choreo.log.port import Record, TopicPartition
from choreo.store import Behind, Effects, Park
from tests.conformance.store.world import P0, P1, own, progress

LANE, OTHER = b"a" * 16, b"b" * 16
RETRY = TopicPartition("retry.payments", 0)


def park(lane: bytes = LANE, head: str = "head", at=P0) -> Park:
    return Park(lane, at, head, "charge", b"key")


def record(offset: int) -> Record:
    return Record("orders", 0, offset, 1_700_000_000_000, b"key", b"value", [("ce_id", b"1"), ("ce_id", b"\xff")])


def behind(*offsets: int, lane: bytes = LANE) -> list[Behind]:
    return [Behind(lane, record(offset)) for offset in offsets]


async def release(store, lane: bytes = LANE, head: str = "head") -> bool:
    """By the owner of the retry topic's partition."""
    return await store.release(lane, head, RETRY, await own(store, RETRY))


async def waiting(store, lane: bytes = LANE) -> list[int]:
    return [each.offset for _, each in await store.behind(lane, 100)]


async def test_records_wait_in_order_behind_their_own_key(store):
    await store.commit(Effects({}, parked=[park(), park(OTHER)], behind=[*behind(1, 2), *behind(7, lane=OTHER)]))
    await store.commit(Effects({}, behind=behind(3)))
    found = await store.behind(LANE, 100)
    assert [each for _, each in found] == [record(1), record(2), record(3)]
    assert [number for number, _ in found] == sorted(number for number, _ in found)
    assert type(found[0][1].headers[0]) is tuple
    assert await waiting(store, OTHER) == [7]
    assert [each.offset for _, each in await store.behind(LANE, 2)] == [1, 2]
    assert await store.behind(LANE, 0) == []


async def test_nothing_waits_where_nothing_is_parked(store):
    assert await store.behind(LANE, 10) is None
    await store.commit(Effects({}, parked=[park(OTHER)]))
    assert await store.behind(LANE, 10) is None
    assert await store.behind(OTHER, 10) == []


async def test_who_names_another_head_gets_nothing(store):
    await store.commit(Effects({}, parked=[park()], behind=behind(1)))
    assert await store.behind(LANE, 10, "another") is None
    assert len(await store.behind(LANE, 10, "head")) == 1
    await store.commit(Effects({}, parked=[park(head="another")]))
    assert len(await store.behind(LANE, 10, "another")) == 1, "a new head, and the same record behind it"
    assert await store.behind(LANE, 10, "head") is None


@pytest.mark.parametrize("head", ["a\0b", "größer", ""])
async def test_a_head_may_be_any_text(store, head):
    await store.commit(Effects({}, parked=[park(head=head)]))
    assert await store.behind(LANE, 10, head) == []
    assert await release(store, LANE, head)


async def test_a_key_is_released_by_who_names_its_head_when_nothing_waits(store):
    await store.commit(Effects({}, parked=[park(), park(OTHER)], behind=behind(1, 2)))
    numbers = [number for number, _ in await store.behind(LANE, 10)]
    assert not await release(store, LANE, "head")
    await store.commit(Effects({}, unparked=numbers[:1]))
    assert not await release(store, LANE, "head")
    await store.commit(Effects({}, unparked=numbers[1:]))
    assert not await release(store, LANE, "another")
    assert await store.behind(LANE, 10) == []
    assert await release(store, LANE, "head")
    assert await store.behind(LANE, 10) is None
    assert not await release(store, LANE, "head")
    assert await store.behind(OTHER, 10) == []


async def test_a_record_that_waits_no_more_is_taken_out_once(store):
    await store.commit(Effects({}, parked=[park()], behind=behind(1, 2)))
    first = (await store.behind(LANE, 1))[0][0]
    await store.commit(Effects({}, unparked=[first, first]))
    await store.commit(Effects({}, unparked=[first]))
    assert await waiting(store) == [2]
    assert not await release(store, LANE, "head")


async def test_a_record_behind_a_released_key_undoes_the_whole_transaction(world, store):
    epoch = await own(store, P0)
    await store.commit(Effects({}, parked=[park(OTHER)]))
    effects = Effects({P0: progress(epoch, 5)}, [b"k" * 16], behind=[*behind(1, lane=OTHER), *behind(2)])
    with pytest.raises(ReleasedError):
        await world.write(store, ["a"], effects)
    assert not store.in_transaction
    assert await world.notes() == []
    assert await store.seen([b"k" * 16]) == set()
    assert await waiting(store, OTHER) == []
    await store.commit(effects._replace(parked=[park()]))
    assert await waiting(store) == [2]


async def test_a_fenced_instance_parks_nothing(world, store):
    epoch = await own(store, P0)
    await own(await world.open(), P0)
    with pytest.raises(FencedError):
        await store.commit(Effects({P0: progress(epoch)}, parked=[park()], behind=behind(1)))
    assert await store.behind(LANE, 10) is None
    with pytest.raises(FencedError):
        await store.commit(Effects({P0: progress(epoch)}, behind=behind(1)))


async def test_a_new_owner_is_told_of_the_parked_keys_of_its_partitions(world, store):
    await own(store, P0, P1)
    await store.commit(Effects({}, parked=[park(), park(OTHER, at=P1)]))
    other = await world.open()
    assert (await other.take_over([P0])).parked == {LANE}
    assert (await other.take_over([P0, P1])).parked == {LANE, OTHER}
    await release(store, LANE, "head")
    assert (await other.take_over([P0, P1])).parked == {OTHER}


async def test_who_no_longer_owns_the_partition_of_the_head_releases_nothing(world, store):
    """What the new owner has let go is perhaps still on its way into the log."""
    await store.commit(Effects({}, parked=[park()]))
    epoch = await own(store, RETRY)
    await own(await world.open(), RETRY)
    with pytest.raises(FencedError):
        await store.release(LANE, "head", RETRY, epoch)
    assert not store.in_transaction
    assert await waiting(store) == []


async def test_a_key_is_released_or_has_a_record_behind_it_never_both(world, store):
    other = await world.open()
    epoch = await own(store, RETRY)
    outcomes = set()
    for offset in range(40):
        await store.commit(Effects({}, parked=[park()]))
        put = asyncio.ensure_future(other.commit(Effects({}, behind=behind(offset))))
        if offset % 4 == 0:
            await asyncio.wait({put})
        gone = await store.release(LANE, "head", RETRY, epoch)
        (refused,) = await asyncio.gather(put, return_exceptions=True)
        assert isinstance(refused, ReleasedError) == gone, refused
        numbers = [number for number, _ in await store.behind(LANE, 10) or []]
        assert bool(numbers) is not gone
        await store.commit(Effects({}, unparked=numbers))
        outcomes.add(gone)
    assert False in outcomes, "where the record was put first"


async def test_who_lets_records_wait_and_who_takes_them_out_do_not_lock_each_other_out(world, store):
    """The owner of a topic's partition and that of the retry topic's have the same keys in hand, in any order."""
    other, lanes = await world.open(), [bytes([number]) * 16 for number in range(40)]
    await store.commit(
        Effects({}, parked=[park(lane) for lane in lanes], behind=[Behind(lane, record(0)) for lane in lanes])
    )
    for first in range(1, 26):
        numbers = [(await store.behind(lane, 1))[0][0] for lane in lanes]
        await asyncio.gather(
            store.commit(Effects({}, behind=[Behind(lane, record(first)) for lane in reversed(lanes)])),
            other.commit(Effects({}, unparked=numbers)),
        )
    assert [await waiting(store, lane) for lane in lanes] == [[25]] * 40

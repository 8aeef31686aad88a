"""Consumer groups: members come, go and die while records flow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from choreo.errors import NotOwnerError
from choreo.log.port import Consumer, Position, TopicPartition
from tests.conformance.log_world import PATIENCE, Witness, World, collect, nothing_more, record, settled, until


def places(topic: str, count: int = 4) -> list[TopicPartition]:
    return [TopicPartition(topic, n) for n in range(count)]


class Worker:
    """A member that handles records, commits them, and commits once more before it gives partitions back."""

    def __init__(self, world: World, topic: str, group: str, handled: list[tuple[int, int, Worker]]) -> None:
        self._handled = handled
        self._topic = topic
        self._next: dict[TopicPartition, int] = {}
        self.witness = Witness(on_revoked=self._commit)
        self.consumer = world.consumer(topic, group=group, listener=self.witness)
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            for r in await self.consumer.poll(20):
                place = TopicPartition(r.topic, r.partition)
                assert place in self.witness.owned, "a record of a partition that is not owned"
                self._handled.append((r.partition, r.offset, self))
                self._next[place] = r.offset + 1
            with contextlib.suppress(NotOwnerError):  # a rebalance is under way: `revoked` commits
                await self._commit(list(self._next))

    async def _commit(self, partitions: Sequence[TopicPartition]) -> None:
        await self.consumer.commit({place: self._next[place] for place in partitions if place in self._next})
        for place in set(self._next) - self.witness.owned:
            del self._next[place]

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()
        await self.consumer.close()


@contextlib.asynccontextmanager
async def flow(world: World, topic: str) -> AsyncIterator[Callable[[], int]]:
    """Records are appended to each of 4 partitions while the body runs; gives how many there are in each."""
    producer = world.producer()
    ended = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            await producer.append([record(topic, b"%d" % written, partition=p) for p in range(4)])
            written += 1
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    try:
        yield lambda: written
    finally:
        ended.set()
        await writing


async def test_one_member_owns_everything_and_goes_on_where_it_committed(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 10, 0)
    await world.fill(topic, 10, 3)
    first = world.consumer(topic, group=group)
    await collect(first, 20)
    assert first.assignment == set(places(topic))
    await first.commit({TopicPartition(topic, 0): 4, TopicPartition(topic, 3): 10})
    assert await world.log.committed(group, places(topic)) == {
        TopicPartition(topic, 0): Position(4),
        TopicPartition(topic, 3): Position(10),
    }
    assert await world.log.committed(world.group(), places(topic)) == {}
    await first.close()
    second = world.consumer(topic, group=group)
    assert [(r.partition, r.offset) for r in await collect(second, 6)] == [(0, n) for n in range(4, 10)]
    await nothing_more(second)


async def test_groups_do_not_share(world: World) -> None:
    topic = await world.topic()
    await world.fill(topic, 30, 1)
    consumers = [world.consumer(topic, group=world.group()) for _ in range(3)]
    for consumer in consumers:
        assert [r.offset for r in await collect(consumer, 30)] == list(range(30))


async def test_who_does_not_own_a_partition_commits_nothing(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 5, 0)
    one, two = world.consumer(topic, group=group), world.consumer(topic, group=group)
    await asyncio.gather(settled([one, two], 4), *(_polled(consumer) for consumer in (one, two)))
    mine, other = min(one.assignment), min(two.assignment)
    with pytest.raises(NotOwnerError):
        await one.commit({mine: 1, other: 1})
    with pytest.raises(NotOwnerError):
        await one.seek(other, 0)
    await two.close()
    with pytest.raises(NotOwnerError):
        await two.commit({other: 1})
    assert await world.log.committed(group, places(topic)) == {}


async def _polled(consumer: Consumer) -> None:
    await consumer.poll(1, 0.1)


async def test_assigned_decides_where_reading_starts(world: World) -> None:
    topic, group = await world.topic(), world.group()
    for n in range(3):
        await world.fill(topic, 10, n)
    first = world.consumer(topic, group=group)
    await collect(first, 30)
    await first.commit(dict.fromkeys(places(topic, 3), 5))
    await first.close()
    witness = Witness(starts={TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 9})
    second = world.consumer(topic, group=group, listener=witness)
    found = await collect(second, 8 + 1 + 5)
    assert [min(r.offset for r in found if r.partition == n) for n in range(3)] == [2, 9, 5]
    assert witness.owned == set(places(topic))
    assert [call for call, _ in witness.calls] == ["assigned"] * len(witness.calls)


async def test_close_tells_the_listener_and_lets_it_commit(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 7, 2)

    async def commit(partitions: Sequence[TopicPartition]) -> None:
        assert TopicPartition(topic, 2) in partitions
        await consumer.commit({TopicPartition(topic, 2): 7})

    witness = Witness(on_revoked=commit)
    consumer = world.consumer(topic, group=group, listener=witness)
    await collect(consumer, 7)
    await consumer.close()
    assert witness.owned == set()
    assert witness.calls[-1] == ("revoked", frozenset(places(topic)))
    assert await world.log.committed(group, places(topic)) == {TopicPartition(topic, 2): Position(7)}


async def test_a_failing_listener_ends_its_consumer(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 3, 0)

    class Failing(Witness):
        async def assigned(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
            raise ZeroDivisionError

    failing = world.consumer(topic, group=group, listener=Failing())
    with pytest.raises(ZeroDivisionError):
        await failing.poll(timeout=PATIENCE)
    await failing.close()
    heir = world.consumer(topic, group=group)
    await settled([heir], 4)
    assert len(await collect(heir, 3)) == 3


async def test_only_partitions_that_move_are_revoked(world: World) -> None:
    topic, group = await world.topic(), world.group()
    witnesses = [Witness(), Witness()]
    first = world.consumer(topic, group=group, listener=witnesses[0])
    await until(lambda: len(witnesses[0].owned) == 4, "the assignment")
    second = world.consumer(topic, group=group, listener=witnesses[1])
    await until(lambda: [len(w.owned) for w in witnesses] == [2, 2], "the second member's share")
    assert sum(len(moved) for call, moved in witnesses[0].calls if call == "revoked") == 2
    assert (first.assignment, second.assignment) == (witnesses[0].owned, witnesses[1].owned)
    await second.close()
    await until(lambda: len(witnesses[0].owned) == 4, "the return of the share")
    assert witnesses[1].owned == set()
    assert not any(call == "lost" for w in witnesses for call, _ in w.calls)


async def test_records_of_revoked_partitions_are_not_returned(world: World) -> None:
    topic, group = await world.topic(), world.group()
    for n in range(4):
        await world.fill(topic, 500, n)
    witness = Witness()
    first = world.consumer(topic, group=group, listener=witness)
    await collect(first, 10, max_records=10)
    second = world.consumer(topic, group=group)
    await until(lambda: len(second.assignment) == 2, "the second member's share")
    while records := await first.poll(100, 0.5):
        assert {TopicPartition(topic, r.partition) for r in records} <= witness.owned
    for place in second.assignment:
        await second.seek(place, 0)
    assert len(await collect(second, 1_000)) == 1_000


async def test_nothing_is_lost_or_repeated_while_members_come_and_go(world: World) -> None:
    topic, group = await world.topic(), world.group()
    handled: list[tuple[int, int, Worker]] = []
    members = 2 if world.name == "mock" else 4  # each of the mock's rebalances takes 3 seconds
    async with flow(world, topic) as written:
        workers = [Worker(world, topic, group, handled)]
        await until(lambda: len(handled) > 20, "records to flow")
        while len(workers) < members:
            workers.append(Worker(world, topic, group, handled))
            await settled([worker.consumer for worker in workers], 4)
        await until(lambda: len({who for *_, who in handled}) == members, "every member to handle some")
        while len(workers) > 1:
            await workers.pop(0).leave()
            await settled([worker.consumer for worker in workers], 4)
    total = written()
    expected = {(p, n) for p in range(4) for n in range(total)}
    await until(lambda: len({place[:2] for place in handled}) == len(expected), "every record to be handled")
    await workers[0].leave()
    assert {place[:2] for place in handled} == expected
    assert len(handled) == len(expected), "a record was handled twice"
    for p in range(4):
        assert [n for partition, n, _ in handled if partition == p] == list(range(total))
    assert await world.log.committed(group, places(topic)) == dict.fromkeys(places(topic), Position(total))


async def test_a_member_that_does_not_poll_stays(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 20, 0)
    witness = Witness()
    silent = world.consumer(topic, group=group, listener=witness)
    assert len(await collect(silent, 5, max_records=5)) == 5
    await asyncio.sleep(world.session_timeout * 1.3)  # that time passes is what this is about
    assert [r.offset for r in await collect(silent, 15)] == list(range(5, 20))
    other = world.consumer(topic, group=group)
    await settled([silent, other], 4)
    await silent.commit({min(silent.assignment): 0})
    assert not any(call == "lost" for call, _ in witness.calls)


@pytest.mark.needs("several_processes")
async def test_a_killed_member_is_replaced(world: World) -> None:
    topic, group = await world.topic(), world.group()
    survivor = world.consumer(topic, group=group)
    await settled([survivor], 4)
    for n in range(4):
        await world.fill(topic, 10, n)
    async with world.process(topic, group) as child:
        await until(lambda: len(survivor.assignment) == 2, "the other process to take its share")
        theirs = set(places(topic)) - survivor.assignment
        seen = await _lines(child, 20)
        assert {place for place, _ in seen} == {place.partition for place in theirs}
        child.kill()
        await child.wait()
    for place in theirs:
        await world.fill(topic, 5, place.partition)
    await settled([survivor], 4)
    committed = await world.log.committed(group, places(topic))
    found = await collect(survivor, 20 + sum(15 - committed.get(place, Position(0)).offset for place in theirs))
    for place in theirs:
        offsets = [r.offset for r in found if r.partition == place.partition]
        assert offsets == list(range(committed.get(place, Position(0)).offset, 15))


@pytest.mark.needs("several_processes")
async def test_a_member_in_another_process_leaves_at_once(world: World) -> None:
    topic, group = await world.topic(), world.group()
    witness = Witness()
    stays = world.consumer(topic, group=group, listener=witness)
    async with world.process(topic, group) as child:
        await settled_with(child, stays)
        assert child.stdin
        child.stdin.write(b"leave\n")
        assert await asyncio.wait_for(child.wait(), PATIENCE) == 0
        await settled([stays], 4)
    assert not any(call == "lost" for call, _ in witness.calls)


async def settled_with(child: asyncio.subprocess.Process, consumer: Consumer) -> None:
    assert child.stdout
    assert (await asyncio.wait_for(child.stdout.readline(), PATIENCE)) == b"ready\n"
    await until(lambda: len(consumer.assignment) == 2, "an even share")


async def _lines(child: asyncio.subprocess.Process, records: int) -> list[tuple[int, int]]:
    """The partition and offset of so many records that the other process has handled."""
    seen: list[tuple[int, int]] = []
    assert child.stdout
    async with asyncio.timeout(PATIENCE):
        while len(seen) < records:
            words = (await child.stdout.readline()).split()
            if len(words) == 3:
                seen.append((int(words[0]), int(words[1])))
    return seen


async def test_a_pause_ends_with_the_ownership(world: World) -> None:
    topic, group = await world.topic(), world.group()
    one = world.consumer(topic, group=group)
    await asyncio.gather(settled([one], 4), _polled(one))
    await one.pause(one.assignment)
    two = world.consumer(topic, group=group)
    await settled([one, two], 4)
    away = sorted(two.assignment)
    await two.close()
    await settled([one], 4)
    for place in places(topic):
        await world.fill(topic, 1, place.partition)
    assert sorted(r.partition for r in await collect(one, 2)) == [place.partition for place in away]
    await nothing_more(one)


@pytest.mark.needs("members_told")
async def test_how_many_members_a_group_has(world: World) -> None:
    topic, group = await world.topic(), world.group()
    assert await world.log.members(group) == 0

    async def become(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await world.log.members(group) != count:
                await asyncio.gather(*(each.poll(timeout=0.02) for each in members))

    members = [world.consumer(topic, group=group) for _ in range(2)]
    await become(2)
    await members.pop().close()
    await become(1)
    await members.pop().close()
    await become(0)

"""Appending atomically: all or nothing, with offsets, and only by the newest of its name."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import pytest

from choreo.errors import ChoreoError, LogError, NotOwnerError, RecordTooLargeError, UnknownTopicError
from choreo.log.port import Position, TopicPartition
from tests.conformance.log_world import Witness, World, collect, nothing_more, record, settled

pytestmark = pytest.mark.needs("transactions")


def name() -> str:
    return f"tx-{uuid.uuid4().hex[:12]}"


async def test_several_topics_and_offsets_go_together(world: World) -> None:
    source, one, two, group = await world.topic(), await world.topic(), await world.topic(), world.group()
    await world.fill(source, 5, 1)
    consumer = world.consumer(source, group=group)
    await collect(consumer, 5)
    place = TopicPartition(source, 1)
    producer = world.producer(name())
    for n in range(1, 6):
        await producer.append_atomically(
            [record(one, b"%d" % n), record(two, b"%d" % n)], {place: Position(n)}, consumer
        )
    assert await world.log.committed(group, [place]) == {place: Position(5)}
    for topic in (one, two):
        found = await collect(world.consumer(topic), 5)
        assert sorted(r.value for r in found) == [b"1", b"2", b"3", b"4", b"5"]
    ends = await world.log.end_offsets([place])
    assert ends == {place: 5}


async def test_offsets_alone_and_records_alone(world: World) -> None:
    topic, group = await world.topic(), world.group()
    place = TopicPartition(topic, 0)
    producer = world.producer(name())
    await producer.append_atomically([record(topic, partition=0)])
    consumer = world.consumer(topic, group=group)
    await collect(consumer, 1)
    await producer.append_atomically([], {place: Position(1)}, consumer)
    assert await world.log.committed(group, [place]) == {place: Position(1)}


async def test_when_one_record_is_refused_nothing_happens(world: World) -> None:
    topic, small, group = await world.topic(), await world.topic(max_message_bytes="1000"), world.group()
    await world.fill(topic, 1, 0)
    consumer = world.consumer(topic, group=group)
    await collect(consumer, 1)
    place = TopicPartition(topic, 0)
    producer = world.producer(name())
    with pytest.raises(RecordTooLargeError, match=small):
        await producer.append_atomically(
            [record(topic, b"lost"), record(small, b"x" * 2_000)], {place: Position(1)}, consumer
        )
    with pytest.raises(UnknownTopicError, match="nowhere"):
        await producer.append_atomically([record(topic, b"lost"), record("nowhere")], {place: Position(1)}, consumer)
    assert await world.log.committed(group, [place]) == {}
    await nothing_more(consumer)
    await producer.append_atomically([record(topic, b"kept", partition=0)], {place: Position(1)}, consumer)
    assert [r.value for r in await collect(consumer, 1)] == [b"kept"]
    assert await world.log.committed(group, [place]) == {place: Position(1)}


async def test_the_newest_of_a_name_fences_the_older(world: World) -> None:
    topic, id_ = await world.topic(), name()
    old = world.producer(id_)
    await old.append_atomically([record(topic, b"1")])
    new, other = world.producer(id_), world.producer(name())
    await new.append_atomically([record(topic, b"2")])
    for count in (1, 1, 50):  # it does not take its name back either
        with pytest.raises(NotOwnerError):
            await old.append_atomically([record(topic, b"zombie")] * count)
    await new.append_atomically([record(topic, b"3")])
    await other.append_atomically([record(topic, b"4")])
    consumer = world.consumer(topic)
    assert sorted(r.value for r in await collect(consumer, 4)) == [b"1", b"2", b"3", b"4"]
    await nothing_more(consumer)


async def test_each_of_a_name_is_fenced_for_good_by_the_next(world: World) -> None:
    topic, id_ = await world.topic(), name()
    former = []
    for n in range(6):
        newest = world.producer(id_)
        await newest.append_atomically([record(topic, b"%d" % n)])
        for old in former:
            with pytest.raises(NotOwnerError):
                await old.append_atomically([record(topic, b"zombie")])
        former.append(newest)
    await former[-1].append_atomically([record(topic, b"6")])
    consumer = world.consumer(topic)
    assert sorted(r.value for r in await collect(consumer, 7)) == [b"%d" % n for n in range(7)]


async def test_a_consumer_that_has_left_commits_nothing(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 1, 0)
    gone = world.consumer(topic, group=group)
    await collect(gone, 1)
    await gone.close()
    owner = world.consumer(topic, group=group)
    await settled([owner], 4)
    place = TopicPartition(topic, 0)
    producer = world.producer(name())
    with pytest.raises((NotOwnerError, LogError)):
        await producer.append_atomically([record(topic, b"zombie", partition=0)], {place: Position(1)}, gone)
    assert await world.log.committed(group, [place]) == {}
    await collect(owner, 1)
    await nothing_more(owner)


async def test_without_a_transactional_id_it_is_refused(world: World) -> None:
    topic = await world.topic()
    with pytest.raises(ChoreoError, match="transactional_id"):
        await world.producer().append_atomically([record(topic)])


async def test_a_plain_append_works_too(world: World) -> None:
    topic = await world.topic()
    await world.producer(name()).append([record(topic, b"1"), record(topic, b"2")])
    assert sorted(r.value for r in await collect(world.consumer(topic), 2)) == [b"1", b"2"]


async def test_what_is_noted_beside_an_offset_is_there_for_the_next_owner(world: World) -> None:
    topic, group = await world.topic(), world.group()
    await world.fill(topic, 3, 2)
    consumer = world.consumer(topic, group=group)
    await collect(consumer, 3)
    noted, plain = TopicPartition(topic, 2), TopicPartition(topic, 0)
    producer = world.producer(name())
    positions = {noted: Position(1, "holes:" + "x" * 4_000), plain: Position(0)}
    await producer.append_atomically([], positions, consumer)
    assert await world.log.committed(group, [noted, plain, TopicPartition(topic, 1)]) == positions
    await producer.append_atomically([], {noted: Position(3)}, consumer)
    assert await world.log.committed(group, [noted]) == {noted: Position(3)}


async def test_nothing_is_committed_for_partitions_that_the_listener_is_still_taking(world: World) -> None:
    """It may have been expelled and be back: what it did before is not for its new ownership."""
    topic, group = await world.topic(), world.group()
    producer, refused = world.producer(name()), []

    class Early(Witness):
        async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
            with pytest.raises(NotOwnerError):
                await producer.append_atomically([record(topic, partition=0)], {partitions[0]: Position(0)}, consumer)
            refused.extend(partitions)
            return await super().assigned(partitions)

    consumer = world.consumer(topic, group=group, listener=Early())
    await settled([consumer], 4)
    await nothing_more(consumer)
    place = TopicPartition(topic, 0)
    assert place in refused
    await producer.append_atomically([], {place: Position(0, "taken")}, consumer)
    assert await world.log.committed(group, [place]) == {place: Position(0, "taken")}

"""Records in and out: whole, in order, where they belong, or refused."""

from __future__ import annotations

import asyncio
import time

import pytest

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, RecordTooLargeError, UnknownTopicError
from choreo.log.port import NewRecord, Topic, TopicPartition
from tests.conformance.log_world import World, by_partition, collect, nothing_more, record, until

# Partitions of 4 by the hashes that Kafka's own tests expect of its murmur2.
JAVA_PARTITIONS = {
    b"21": (-973932308 & 0x7FFFFFFF) % 4,
    b"foobar": (-790332482 & 0x7FFFFFFF) % 4,
    b"a-little-bit-long-string": (-985981536 & 0x7FFFFFFF) % 4,
    b"a-little-bit-longer-string": (-1486304829 & 0x7FFFFFFF) % 4,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": (-58897971 & 0x7FFFFFFF) % 4,
    b"abc": 479470107 % 4,
}


async def test_a_key_goes_to_the_partition_that_java_chooses(world: World) -> None:
    topic = await world.topic()
    await world.producer().append([record(topic, key=key) for key in JAVA_PARTITIONS])
    found = await collect(world.consumer(topic), len(JAVA_PARTITIONS))
    assert {r.key: r.partition for r in found} == JAVA_PARTITIONS


async def test_a_partition_named_is_used_and_without_key_any_will_do(world: World) -> None:
    topic = await world.topic()
    await world.producer().append([record(topic, key=b"abc", partition=n) for n in range(4)])
    await world.producer().append([record(topic, b"anywhere") for _ in range(8)])
    found = await collect(world.consumer(topic), 12)
    assert sorted(r.partition for r in found if r.key) == [0, 1, 2, 3]
    assert {r.partition for r in found if not r.key} <= {0, 1, 2, 3}


async def test_records_come_back_as_they_were(world: World) -> None:
    topic = await world.topic()
    headers = [
        ("trace", b"\x00\xff"),
        ("same", b"1"),
        ("same", b"2"),
        ("", b"x"),
        ("empty", b""),
        ("naïve", b"y" * 300),
    ]
    written = [
        NewRecord(topic, b"k", b"value", headers, 1_700_000_000_123, 0),
        NewRecord(topic, None, b"", [], 1_700_000_000_124, 0),
        NewRecord(topic, b"", None, [("h", b"")], 1_700_000_000_122, 0),
        NewRecord(topic, b"\x00" * 10, bytes(range(256)), [], 1, 0),  # librdkafka takes timestamp 0 for none
    ]
    await world.producer().append(written)
    found = await collect(world.consumer(topic), len(written))
    assert [NewRecord(r.topic, r.key, r.value, r.headers, r.timestamp, r.partition) for r in found] == written
    assert [r.offset for r in found] == [0, 1, 2, 3]


async def test_without_a_timestamp_the_clock_decides(world: World) -> None:
    topic = await world.topic()
    before = time.time_ns() // 1_000_000
    await world.producer().append([record(topic)])
    (found,) = await collect(world.consumer(topic), 1)
    assert before <= found.timestamp <= time.time_ns() // 1_000_000


async def test_appends_keep_their_order_in_each_partition(world: World) -> None:
    topic = await world.topic()
    producer = world.producer()
    for call in range(20):
        await producer.append([record(topic, b"%d" % (call * 10 + n), b"key %d" % (n % 5)) for n in range(10)])
    found = await collect(world.consumer(topic), 200, max_records=7)
    for records in by_partition(found).values():
        assert [r.offset for r in records] == list(range(len(records)))
        numbers = [int(r.value or b"") for r in records]
        assert numbers == sorted(numbers)


async def test_appends_at_the_same_time_do_not_mix_up(world: World) -> None:
    topic = await world.topic()
    producers = [world.producer() for _ in range(3)]
    calls = [
        producer.append([record(topic, b"%d" % (number * 50 + n), b"key %d" % who, 1) for n in range(50)])
        for number in range(4)
        for who, producer in enumerate(producers)
    ]
    await asyncio.gather(*calls)
    found = await collect(world.consumer(topic), 600)
    for who in range(3):
        numbers = [int(r.value or b"") for r in found if r.key == b"key %d" % who]
        assert sorted(numbers) == list(range(200))
        for start in range(0, 200, 50):
            assert [n for n in numbers if start <= n < start + 50] == list(range(start, start + 50))


async def test_a_record_of_a_million_bytes_passes(world: World) -> None:
    topic = await world.topic()
    value = bytes(range(250)) * 4_000
    await world.producer().append([record(topic, value, partition=n) for n in range(3)])
    assert [r.value for r in await collect(world.consumer(topic), 3)] == [value] * 3


@pytest.mark.needs("topic_creation")
async def test_a_record_too_large_is_refused_and_named(world: World) -> None:
    topic, usual = await world.topic(max_message_bytes="2000"), await world.topic()
    producer = world.producer()
    with pytest.raises(RecordTooLargeError, match=topic) as refused:
        await producer.append([record(topic, b"x" * 2_000)])
    assert "max.message.bytes" in str(refused.value)
    with pytest.raises(RecordTooLargeError, match=usual):
        await producer.append([record(usual, b"x" * 1_100_000)])
    await producer.append([record(topic, b"x" * 1_500), record(usual, b"x")])
    assert [r.value for r in await collect(world.consumer(topic), 1)] == [b"x" * 1_500]


@pytest.mark.needs("topic_creation")
async def test_an_unknown_topic_is_refused_and_named(world: World) -> None:
    with pytest.raises(UnknownTopicError, match=r"nowhere.*choreo topics create"):
        await world.producer().append([record("nowhere")])
    consumer = world.consumer("nowhere", group=world.group())
    with pytest.raises(UnknownTopicError, match="nowhere"):
        await consumer.poll(timeout=10)


async def test_an_unknown_partition_is_refused(world: World) -> None:
    topic = await world.topic()
    with pytest.raises(UnknownTopicError, match=topic):
        await world.producer().append([record(topic, partition=99)])


@pytest.mark.needs("topic_creation")
async def test_topics_are_created_once(world: World) -> None:
    topic = await world.topic(partitions=3, retention_ms="86400000")
    again = Topic(name=topic, partitions=7, replication=1)
    other = Topic(name=f"{topic}.other", partitions=1, replication=1)
    assert await world.log.create_topics([again, other]) == [other.name]
    assert await world.log.create_topics([again, other]) == []
    found = await world.log.topics()
    assert (found[topic].partitions, found[other.name].partitions) == (3, 1)
    assert found[topic].settings in ({}, {"retention.ms": "86400000"})
    assert not any(name.startswith("__") for name in found)


@pytest.mark.needs("topic_creation")
async def test_a_name_that_is_no_topic_is_refused(world: World) -> None:
    with pytest.raises((ConfigurationError, LogError), match="no such name"):
        await world.log.create_topics([Topic(name="no such name", replication=1)])


async def test_offsets_say_where_a_partition_begins_and_ends(world: World) -> None:
    topic = await world.topic()
    await world.fill(topic, 5, partition=2)
    partitions = [TopicPartition(topic, n) for n in range(4)]
    assert await world.log.beginning_offsets(partitions) == dict.fromkeys(partitions, 0)
    assert await world.log.end_offsets(partitions) == {**dict.fromkeys(partitions, 0), partitions[2]: 5}


@pytest.mark.needs("time_lookup")
async def test_offsets_of_a_point_in_time(world: World) -> None:
    topic = await world.topic()
    base = 1_700_000_000_000
    times = [0, 10, 5, 20, 20, 15, 40]  # records may come late
    await world.producer().append([record(topic, partition=1, timestamp=base + t) for t in times])
    place = TopicPartition(topic, 1)
    found = {t: (await world.log.offsets_at(base + t, [place]))[place] for t in (-5, 0, 1, 5, 10, 11, 20, 21, 40, 41)}
    assert found == {-5: 0, 0: 0, 1: 1, 5: 1, 10: 1, 11: 3, 20: 3, 21: 6, 40: 6, 41: 7}


async def test_many_records_are_complete_and_in_order(world: World) -> None:
    topic = await world.topic()
    producer = world.producer()
    consumer = world.consumer(topic, group=world.group())

    async def write() -> None:
        for start in range(0, world.many, 500):
            numbers = range(start, start + 500)
            await producer.append([record(topic, b"%d" % n, b"key %d" % (n % 100)) for n in numbers])

    writing = asyncio.create_task(write())
    found = await collect(consumer, world.many)
    await writing
    assert len({r.value for r in found}) == world.many
    for records in by_partition(found).values():
        assert [r.offset for r in records] == list(range(len(records)))
        numbers = [int(r.value or b"") for r in records]
        assert numbers == sorted(numbers)


@pytest.mark.needs("prompt_retention")
async def test_old_records_go(world: World) -> None:
    topic = await world.topic(retention_ms="3600000")
    now = time.time_ns() // 1_000_000
    old = [record(topic, b"old", partition=0, timestamp=now - 7_200_000) for _ in range(10)]
    await world.producer().append([*old, record(topic, b"new", partition=0, timestamp=now)])
    place = TopicPartition(topic, 0)
    first = -1
    while first != 10:
        first = (await world.log.beginning_offsets([place]))[place]
        assert first in range(11)
        await asyncio.sleep(0.01)
    assert (await world.log.end_offsets([place]))[place] == 11
    assert [(r.offset, r.value) for r in await collect(world.consumer(topic), 1)] == [(10, b"new")]
    assert await world.log.offsets_at(0, [place]) == {place: 10}


async def test_a_closed_producer_appends_no_more(world: World) -> None:
    topic = await world.topic()
    producer = world.producer()
    under_way = asyncio.create_task(producer.append([record(topic)]))
    await asyncio.sleep(0)
    await producer.close()
    await producer.close()
    await under_way
    with pytest.raises(LogError):
        await producer.append([record(topic)])
    consumer = world.consumer(topic)
    await collect(consumer, 1)
    await nothing_more(consumer)


async def test_closing_under_load_loses_nothing_acknowledged(world: World) -> None:
    topic = await world.topic()
    acknowledged: set[bytes] = set()
    log = world.open()

    async def write(who: int) -> None:
        producer = log.producer()
        for n in range(1_000):
            values = [b"%d/%d/%d" % (who, n, i) for i in range(10)]
            await producer.append([record(topic, value, value) for value in values])
            acknowledged.update(values)

    async with log:
        writers = [asyncio.create_task(write(who)) for who in range(4)]
        polling = asyncio.create_task(log.consumer([topic], group=world.group()).poll(1, 0.0))
        await until(lambda: len(acknowledged) > 200, "the load to begin")
    outcomes = await asyncio.gather(*writers, return_exceptions=True)
    await asyncio.gather(polling, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, LogError) for outcome in outcomes), outcomes
    reader = world.consumer(topic)
    found: set[bytes | None] = set()
    while records := await reader.poll(500, 1.0):
        found |= {r.value for r in records}
    assert acknowledged <= found


async def test_appends_that_overlap_take_effect_in_the_order_they_were_begun(world: World) -> None:
    topic = await world.topic()
    producer = world.producer(gapless=True)
    values = [b"%d" % n for n in range(2_000)]
    parts = [values[first : first + 7] for first in range(0, len(values), 7)]
    appends = [producer.append([record(topic, value, partition=1) for value in part]) for part in parts]
    await asyncio.gather(*appends)
    assert [r.value for r in await collect(world.consumer(topic), len(values))] == values


@pytest.mark.needs("topic_creation")
async def test_the_first_failure_breaks_a_gapless_producer_and_repeating_from_there_leaves_no_gap(world: World) -> None:
    topic = await world.topic(1, max_message_bytes="1000")
    values = [b"%d" % n for n in range(60)]
    producer = world.producer(gapless=True)
    await producer.append([record(topic, b"first")])
    large = [record(topic, b"x" * 2_000)]
    begun = [producer.append(large if n == 30 else [record(topic, values[n])]) for n in range(60)]
    outcomes = await asyncio.gather(*begun, return_exceptions=True)
    assert isinstance(outcomes[30], RecordTooLargeError)
    failed = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, LogError)]
    assert failed[-1] == 59, "nothing that was begun later is appended"
    assert failed == list(range(failed[0], 60))
    with pytest.raises(LogUnavailableError, match="broken"):
        await producer.append([record(topic, b"later")])
    await producer.close()
    successor = world.producer(gapless=True)
    again = [n for n in failed if n != 30]
    await asyncio.gather(*(successor.append([record(topic, values[n])]) for n in again))
    reader, found = world.consumer(topic), []
    end = (await world.log.end_offsets([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)]
    while len(found) < end:
        found += await reader.poll(500, 5)
    once = dict.fromkeys(r.value for r in found)
    assert list(once) == [b"first", *(value for n, value in enumerate(values) if n != 30)]

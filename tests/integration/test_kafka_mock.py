"""The adapter on librdkafka's mock cluster: no server, no Java."""

import asyncio
import uuid

import confluent_kafka as ck
import pytest
from confluent_kafka import Producer
from prometheus_client import generate_latest

from choreo.errors import UnknownTopicError
from choreo.log.kafka import KafkaLog
from choreo.log.kafka import producer as producers
from choreo.log.port import NewRecord, Position, TopicPartition
from choreo.observe.metrics import registry


@pytest.fixture
async def log(mock_bootstrap):
    async with KafkaLog.at(f"kafka://{mock_bootstrap}", {"group.protocol": "consumer"}) as log:
        yield log


@pytest.fixture
def topic(mock_bootstrap):
    return made(f"t-{uuid.uuid4().hex[:12]}", mock_bootstrap)


def made(name, mock_bootstrap):
    Producer({"bootstrap.servers": mock_bootstrap}).list_topics(name, timeout=10)  # the mock creates what is asked for
    return name


async def read(consumer, count):
    records = []
    async with asyncio.timeout(60):
        while len(records) < count:
            records += await consumer.poll()
    return records


async def test_a_partition_of_which_one_client_has_not_heard_is_waited_for(log, topic, monkeypatch):
    """A broker that has just been started may tell a client of fewer partitions than there are."""
    monkeypatch.setattr("choreo.log.kafka.log.GRACE", 0.0)  # that long a topic may be unknown
    ask, unaware = log._offsets.first, iter(range(5))

    def first(at):
        if next(unaware, None) is not None:
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._UNKNOWN_PARTITION))
        return ask(at)

    monkeypatch.setattr(log._offsets, "first", first)
    assert await log.beginning_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}
    monkeypatch.setattr(log._offsets, "first", ask)
    with pytest.raises(UnknownTopicError):
        await log.beginning_offsets([TopicPartition(topic, 99)])


async def test_append_poll_commit(log, topic):
    await log.producer().append([NewRecord(topic, b"k", b"%d" % n, [("h", b"x")]) for n in range(1_000)])
    consumer = log.consumer([topic], group=topic)
    records = await read(consumer, 1_000)
    assert [r.value for r in records] == [b"%d" % n for n in range(1_000)]
    assert records[0].headers == [("h", b"x")]
    where = TopicPartition(topic, records[0].partition)
    await consumer.commit({where: 1_000})
    assert await log.committed(topic, [where]) == {where: Position(1_000)}
    assert topic in await log.topics()


async def test_a_topic_made_after_the_first_append_to_it_is_known_whole(mock_bootstrap, monkeypatch):
    """Nothing follows a partition's first record before it is acknowledged; also where the topic was missing at first."""
    name, ask, alone = f"t-{uuid.uuid4().hex[:12]}", producers._topic, list[bytes]()
    introduce = producers.GaplessProducer._introduce

    async def introduced(self, record, client):
        alone.append(record.key)
        return await introduce(self, record, client)

    missing = iter([ck.KafkaException(ck.KafkaError(ck.KafkaError.UNKNOWN_TOPIC_OR_PART))])

    def topic_of(client, topic):
        if error := next(missing, None):
            raise error
        return ask(client, topic)

    monkeypatch.setattr(producers.GaplessProducer, "_introduce", introduced)
    monkeypatch.setattr(producers, "_topic", topic_of)
    async with KafkaLog.at(f"kafka://{mock_bootstrap}", {}) as log:
        made(name, mock_bootstrap)
        partitions = (await log.topics())[name].partitions
        producer = log.producer(gapless=True)
        keys = [b"%d" % n for n in range(50)]
        await producer.append([NewRecord(name, key, b"v", []) for key in keys * 2])
        assert len(alone) == partitions + 1, "one for each partition, and the one that could not ask"
        await producer.append([NewRecord(name, key, b"v", []) for key in keys])
        assert len(alone) == partitions + 1


async def test_partitions_are_strange_again_after_a_while(log, topic, monkeypatch):
    monkeypatch.setattr(producers, "_FORGET", 0.0)
    producer = log.producer(gapless=True)
    for _ in range(3):
        await producer.append([NewRecord(topic, b"k", b"v", [])])
        (known,) = producer._topics.values()
        assert len(known.strange) == known.partitions - 1


async def test_a_header_without_a_value_is_read_as_empty(log, topic, mock_bootstrap):
    other = Producer({"bootstrap.servers": mock_bootstrap})
    other.produce(topic, b"v", headers=[("null", None), ("full", b"1")])
    assert other.flush(10) == 0
    assert [r.headers for r in await read(log.consumer([topic]), 1)] == [[("null", b""), ("full", b"1")]]


async def test_a_cancelled_poll_loses_nothing(log, topic):
    consumer = log.consumer([topic])
    producer = log.producer()
    found = []
    for n in range(50):
        polling = asyncio.create_task(consumer.poll())
        await asyncio.sleep(0)
        await producer.append([NewRecord(topic, None, b"%d" % n, [], None, 0)])
        polling.cancel()
        try:
            found += await polling
        except asyncio.CancelledError:
            found += await consumer.poll(500, 0)
    found += await read(consumer, 50 - len(found)) if len(found) < 50 else []
    assert [r.offset for r in found] == list(range(50))


async def test_two_appends_in_a_row_keep_their_order(log, topic):
    producer = log.producer()
    for start in range(0, 300, 3):
        await producer.append([NewRecord(topic, b"same", b"%d" % n, []) for n in range(start, start + 3)])
    assert [r.value for r in await read(log.consumer([topic]), 300)] == [b"%d" % n for n in range(300)]


async def test_a_full_queue_is_waited_out(mock_bootstrap, topic):
    async with KafkaLog.at(f"kafka://{mock_bootstrap}", {"queue.buffering.max.messages": "50"}) as log:
        await log.producer().append([NewRecord(topic, b"same", b"%d" % n, []) for n in range(1_000)])
        assert [r.value for r in await read(log.consumer([topic]), 1_000)] == [b"%d" % n for n in range(1_000)]


async def test_statistics_show_the_lag(mock_bootstrap, topic):
    settings = {"statistics.interval.ms": "100", "client.id": topic}
    async with KafkaLog.at(f"kafka://{mock_bootstrap}", settings) as log:
        await log.producer().append([NewRecord(topic, b"k", b"v", [])])
        await read(log.consumer([topic]), 1)
        async with asyncio.timeout(60):
            while f'choreo_kafka_broker_up{{broker="{mock_bootstrap}",client="{topic}"}} 1.0' not in exposed():  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.02)


def exposed():
    return generate_latest(registry).decode()


async def test_what_is_closed_is_forgotten(log, topic):
    for _ in range(3):
        await log.producer().close()
        await log.consumer([topic]).close()
    log.producer()
    assert len(log._opened) == 1

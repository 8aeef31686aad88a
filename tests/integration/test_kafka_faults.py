"""A broker that dies, comes back, or is not there at all."""

import asyncio
import contextlib
import uuid

import confluent_kafka as ck
import pytest
import structlog

from choreo.errors import LogError, LogUnavailableError, UnknownTopicError
from choreo.log.kafka import KafkaLog
from choreo.log.port import NewRecord, Position, Topic, TopicPartition
from tests.servers.process import free_ports

pytestmark = pytest.mark.kafka

QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500", "delivery.timeout.ms": "2000"}
BOTH = pytest.mark.parametrize(
    "protocol", [QUICK, {"group.protocol": "consumer", "delivery.timeout.ms": "2000"}], ids=["classic", "consumer"]
)


async def fresh_topic(log, partitions=2):
    name = f"t-{uuid.uuid4().hex[:12]}"
    assert await log.create_topics([Topic(name=name, partitions=partitions)]) == [name]
    return name


async def append_until_done(producer, records):
    """Repeat as the port says; how often it failed."""
    failures = 0
    async with asyncio.timeout(60):
        while True:
            try:
                await producer.append(records)
                return failures
            except LogUnavailableError:
                failures += 1


async def read_until(consumer, values):
    """Poll until all these values have come."""
    missing = set(values)
    async with asyncio.timeout(60):
        while missing:
            for record in await consumer.poll():
                missing.discard(record.value)


@BOTH
async def test_a_killed_broker_that_comes_back_interrupts_and_loses_nothing(kafka_broker, protocol):
    async with KafkaLog.at(f"kafka://{kafka_broker.bootstrap}", protocol) as log:
        topic = await fresh_topic(log)
        producer, consumer = log.producer(), log.consumer([topic], group=topic)
        values = [b"before-%d" % n for n in range(100)]
        # A broker that has just started may take longer than two seconds for its first producer.
        await append_until_done(producer, [NewRecord(topic, value, value, []) for value in values])
        await read_until(consumer, values)
        with structlog.testing.capture_logs() as lines:
            kafka_broker.kill()
            with pytest.raises(LogUnavailableError):
                await producer.append([NewRecord(topic, b"k", b"while it is away", [])])
            values = [b"after-%d" % n for n in range(100)]
            appending = asyncio.create_task(
                append_until_done(producer, [NewRecord(topic, value, value, []) for value in values])
            )
            await asyncio.to_thread(kafka_broker.start)
            await appending
            await read_until(consumer, values)
        told = [line["client"] for line in lines if line["event"] == "kafka_unreachable"]
        assert len(told) == len(set(told)), "an outage is told once by each client"
        end = await log.end_offsets(consumer.assignment)
        await asyncio.wait_for(_committed_at_last(consumer, end), 60)
        assert {at: known.offset for at, known in (await log.committed(topic, list(end))).items()} == end


async def _committed_at_last(consumer, offsets):
    while True:
        with contextlib.suppress(LogUnavailableError):
            return await consumer.commit(offsets)


@BOTH
async def test_closing_does_not_wait_for_a_broker_that_is_gone(kafka_broker, protocol):
    log = await KafkaLog.at(f"kafka://{kafka_broker.bootstrap}", protocol).__aenter__()
    topic = await fresh_topic(log)
    producer, consumer = log.producer(), log.consumer([topic], group=topic)
    await producer.append([NewRecord(topic, b"k", b"v", [])])
    assert len(await consumer.poll(1, 30)) == 1
    kafka_broker.kill()
    pending = asyncio.create_task(producer.append([NewRecord(topic, b"k", b"v", [])]))
    committing = asyncio.create_task(consumer.commit({TopicPartition(topic, 0): 1}))
    async with asyncio.timeout(60):
        await log.__aexit__()
    for task in (pending, committing):
        with pytest.raises(LogError):
            await task


async def test_a_broker_that_is_down_at_the_start_is_named_with_the_remedy():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(LogUnavailableError) as refused:
        async with KafkaLog.at(f"kafka://{address}", {"sasl.username": "geheim"}):
            pass
    assert address in str(refused.value)
    assert "CHOREO_LOG" in str(refused.value)
    assert "geheim" not in str(refused.value)


async def test_an_address_that_does_not_resolve_says_so(monkeypatch):
    monkeypatch.setattr("choreo.log.kafka.log.WAIT", 0.5)  # the whole of it is waited for by the test above
    with pytest.raises(LogUnavailableError, match=r"nowhere\.invalid"):
        async with KafkaLog.at("kafka://nowhere.invalid:9092", {}):
            pass


async def test_closing_waits_for_the_transaction_under_way(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        topic = await fresh_topic(log)
        producer = log.producer(transactional_id=topic)
        await producer.append([NewRecord(topic, b"k", b"first", [])])
        records = [NewRecord(topic, b"%d" % n, bytes(200), []) for n in range(5_000)]
        under_way = asyncio.create_task(producer.append(records))
        await asyncio.sleep(0)
        await producer.close()
        await under_way
        assert sum((await log.end_offsets([TopicPartition(topic, n) for n in range(2)])).values()) >= 5_001


async def test_offsets_that_a_transaction_holds_back_say_so(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        topic = await fresh_topic(log)
        conf = {"bootstrap.servers": kafka_bootstrap}
        member = ck.Consumer(conf | {"group.id": topic})
        producer = ck.Producer(conf | {"transactional.id": topic})
        await asyncio.to_thread(producer.init_transactions)
        producer.begin_transaction()
        moved = [ck.TopicPartition(topic, 0, 5)]
        await asyncio.to_thread(producer.send_offsets_to_transaction, moved, member.consumer_group_metadata())
        with pytest.raises(LogUnavailableError, match="find-hanging"):
            await log.committed(topic, [TopicPartition(topic, 0)])
        await asyncio.to_thread(producer.commit_transaction)
        assert await log.committed(topic, [TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): Position(5)}
        member.close()


async def test_a_topic_that_does_not_exist_ends_polling(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        for group in ("somebody", None):
            consumer = log.consumer(["there-is-no-such-topic"], group=group)
            with pytest.raises(UnknownTopicError, match="there-is-no-such-topic"):
                await consumer.poll(1, 60)


async def test_a_topic_created_while_it_is_missed_is_read(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {"topic.metadata.refresh.interval.ms": "500"}) as log:
        name = f"t-{uuid.uuid4().hex[:12]}"
        consumer = log.consumer([name])
        assert await consumer.poll(1, 0) == []
        await log.create_topics([Topic(name=name)])
        await log.producer().append([NewRecord(name, b"k", b"v", [])])
        assert [r.value for r in await consumer.poll(1, 60)] == [b"v"]


async def test_closing_under_load_ends(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        topic = await fresh_topic(log)
        producer, consumer = log.producer(), log.consumer([topic], group=topic)

        async def load():
            while True:
                await producer.append([NewRecord(topic, b"%d" % n, bytes(100), []) for n in range(200)])

        appending = asyncio.create_task(load())
        for _ in range(20):
            await consumer.poll()
        async with asyncio.timeout(60):
            await consumer.close()
            await producer.close()
        with pytest.raises(LogError, match="closed"):
            await appending
        with pytest.raises(LogError, match="closed"):
            await consumer.poll()
        await consumer.close()
        await producer.close()


async def test_close_goes_on_when_its_caller_is_cancelled(kafka_bootstrap):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        topic = await fresh_topic(log)
        told = asyncio.Event()

        class Listener:
            async def assigned(self, partitions):
                return {}

            async def revoked(self, partitions):
                told.set()

        consumer = log.consumer([topic], group=topic, listener=Listener())
        async with asyncio.timeout(60):
            while not consumer.assignment:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.02)
        closing = asyncio.create_task(consumer.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(60):
            await told.wait()
            await consumer.close()
        assert consumer.assignment == frozenset()

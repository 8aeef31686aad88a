"""Members of a Kafka group, under both group protocols."""

import asyncio
import time
import uuid

import pytest

from choreo.log.kafka import KafkaLog
from choreo.log.port import NewRecord, Topic, TopicPartition

pytestmark = pytest.mark.kafka

QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
BOTH = pytest.mark.parametrize("protocol", [QUICK, {"group.protocol": "consumer"}], ids=["classic", "consumer"])


class Member:
    """A member that knows how far it has come and commits when it must give partitions up."""

    def __init__(self, log, topic):
        self.calls, self.position = [], {}
        self.consumer = log.consumer([topic], group=topic, listener=self)

    async def assigned(self, partitions):
        self.calls.append("assigned")
        return {}

    async def revoked(self, partitions):
        await self.consumer.commit({p: self.position.pop(p) for p in partitions if p in self.position})
        self.calls.append("revoked")

    async def lost(self, partitions):
        self.calls.append("lost")

    async def read(self, count):
        records = []
        async with asyncio.timeout(60):
            while len(records) < count:
                for record in await self.consumer.poll(50):
                    self.position[TopicPartition(record.topic, record.partition)] = record.offset + 1
                    records.append(record)
        return records

    async def owns(self, count):
        async with asyncio.timeout(60):
            while len(self.consumer.assignment) != count:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.02)


@pytest.fixture
async def topic(kafka_bootstrap):
    name = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        assert await log.create_topics([Topic(name=name, partitions=4)]) == [name]
    return name


def numbered(topic, count, partitions=4):
    return [NewRecord(topic, None, b"%d" % n, [], None, n % partitions) for n in range(count)]


@BOTH
async def test_what_is_committed_inside_revoked_is_where_the_next_member_starts(kafka_bootstrap, topic, protocol):
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", protocol) as log:
        producer = log.producer()
        await producer.append(numbered(topic, 400))
        first = Member(log, topic)
        await first.read(400)  # nothing of it is committed yet
        second = Member(log, topic)
        await second.owns(2)
        await first.owns(2)
        await producer.append(numbered(topic, 40))
        seen = await asyncio.gather(first.read(20), second.read(20))
        assert all(record.offset >= 100 for records in seen for record in records), "a committed record came again"
        await first.consumer.close()
        await second.owns(4)
        await producer.append(numbered(topic, 4))
        assert {record.offset for record in await second.read(4)} == {110}
        assert "lost" not in first.calls + second.calls


@pytest.mark.parametrize("blocked", [True, False], ids=["loop blocked", "nobody polls"])
async def test_a_member_whose_records_nobody_takes_stays_in_its_group(kafka_bootstrap, topic, blocked):
    settings = QUICK | {"session.timeout.ms": "3000", "max.poll.interval.ms": "3000"}
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", settings) as log:
        await log.producer().append(numbered(topic, 20_000))
        member = Member(log, topic)
        records = await member.read(10)
        if blocked:
            time.sleep(4)  # noqa: ASYNC251 - a handler that blocks the loop is what this is about
        else:
            await asyncio.sleep(4)  # that this time passes is the condition
        records += await member.read(20_000 - len(records))
        for partition in range(4):
            assert [r.offset for r in records if r.partition == partition] == list(range(5_000))
        await member.consumer.commit(member.position)
        assert member.calls == ["assigned"]


async def test_a_listener_that_fails_ends_polling_with_its_own_error(kafka_bootstrap, topic):
    class Broken(Member):
        async def assigned(self, partitions):
            raise RuntimeError("no store")

    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", QUICK) as log:
        await log.producer().append(numbered(topic, 4))
        with pytest.raises(RuntimeError, match="no store"):
            await Broken(log, topic).read(1)


async def test_a_partition_paused_while_it_is_assigned_gives_nothing_until_resumed(kafka_bootstrap, topic):
    held = TopicPartition(topic, 2)

    class Careful(Member):
        async def assigned(self, partitions):
            await self.consumer.pause([held])
            return {}

    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", QUICK) as log:
        await log.producer().append(numbered(topic, 40))
        member = Careful(log, topic)
        assert held.partition not in {r.partition for r in await member.read(30)}
        assert await member.consumer.poll(10, 0.3) == []
        await member.consumer.resume([held])
        assert [(r.partition, r.offset) for r in await member.read(10)] == [(2, n) for n in range(10)]


async def test_a_reader_takes_partitions_that_come_later(kafka_bootstrap, topic, monkeypatch):
    from confluent_kafka.admin import AdminClient, NewPartitions

    monkeypatch.setattr("choreo.log.kafka.owner.REFRESH", 0.2)
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {"topic.metadata.refresh.interval.ms": "500"}) as log:
        reader = log.consumer([topic], start="latest")
        assert await reader.poll(1, 0) == []
        admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
        await asyncio.wrap_future(admin.create_partitions([NewPartitions(topic, 5)])[topic])
        async with asyncio.timeout(30):
            while len(reader.assignment) != 5:
                assert await reader.poll(1, 0.05) == []
        await log.producer().append([NewRecord(topic, None, b"new", [], None, 4)])
        assert [r.partition for r in await reader.poll(1, 30)] == [4]

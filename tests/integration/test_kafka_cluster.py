"""The tests' own Kafka cluster: copies, the loss of a node, and a broker behind a proxy."""

import asyncio
import uuid

import pytest

from choreo.errors import LogUnavailableError
from choreo.log.kafka import KafkaLog
from choreo.log.port import NewRecord, Topic, TopicPartition
from tests.conftest import started
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def cluster():
    yield from started(KafkaCluster)


async def test_a_partition_outlives_its_leader_but_not_two_of_three_copies(cluster):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{cluster.bootstrap}", {"delivery.timeout.ms": "3000"}) as log:
        await log.create_topics([Topic(name=topic, partitions=1)])
        assert (await log.topics())[topic].replication == 3
        producer = log.producer()
        await producer.append([NewRecord(topic, b"k", b"1", [])])
        first = cluster.leader_of(topic)
        first.kill()
        async with asyncio.timeout(60):
            while True:
                try:
                    await producer.append([NewRecord(topic, b"k", b"2", [])])
                    break
                except LogUnavailableError:
                    pass
        second = cluster.leader_of(topic)
        assert second is not first
        second.freeze()
        with pytest.raises(LogUnavailableError):
            await producer.append([NewRecord(topic, b"k", b"3", [])])
        await asyncio.to_thread(cluster.ensure_running)
        reader, values = log.consumer([topic]), []
        async with asyncio.timeout(60):
            while b"2" not in values:
                values += [record.value for record in await reader.poll()]
        assert values[0] == b"1"


@pytest.fixture(scope="module")
def proxied():
    """A proxy, and the broker behind it."""
    with Proxy() as proxy:
        for kafka in started(lambda: KafkaServer(proxy=proxy)):
            yield proxy, kafka


@pytest.fixture
async def direct(proxied):
    """The log past the proxy."""
    async with KafkaLog.at(f"kafka://{proxied[1].bootstrap}", {}) as log:
        yield log


@pytest.fixture
async def topic(direct):
    name = f"t-{uuid.uuid4().hex[:12]}"
    await direct.create_topics([Topic(name=name, partitions=1)])
    return name


async def test_a_client_behind_the_proxy_has_no_other_way(proxied, direct, topic):
    proxy, _ = proxied
    async with KafkaLog.at(f"kafka://{proxy.address}", {"delivery.timeout.ms": "2000"}) as log:
        producer = log.producer()
        await producer.append([NewRecord(topic, b"k", b"1", [])])
        await asyncio.to_thread(proxy.refuse)
        with pytest.raises(LogUnavailableError):
            await producer.append([NewRecord(topic, b"k", b"2", [])])
        await direct.producer().append([NewRecord(topic, b"k", b"3", [])])
        await asyncio.to_thread(proxy.restore)
        async with asyncio.timeout(60):
            while True:
                try:
                    await producer.append([NewRecord(topic, b"k", b"4", [])])
                    break
                except LogUnavailableError:
                    pass


async def test_offsets_asked_for_while_the_connection_breaks_are_right_or_an_error(proxied, direct, topic):
    (proxy, _), at = proxied, TopicPartition(topic, 0)
    await direct.producer().append([NewRecord(topic, b"k", b"1", [])])
    quick = {"reconnect.backoff.ms": "10", "reconnect.backoff.max.ms": "50"}
    async with KafkaLog.at(f"kafka://{proxy.address}", quick) as log:
        for number in range(3):
            proxy.delay(0.05)
            asking = asyncio.gather(log.beginning_offsets([at]), log.end_offsets([at]), return_exceptions=True)
            await asyncio.sleep(0.02 * number)  # another moment each time: the two questions are under way
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(proxy.restore)
            told = [each for each in await asking if not isinstance(each, LogUnavailableError)]
            assert all(found in ({at: 0}, {at: 1}) for found in told)

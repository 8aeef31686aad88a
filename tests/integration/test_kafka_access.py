"""What Kafka refuses for good: logins, rights, sizes, settings."""

import asyncio
import uuid

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from choreo.errors import ConfigurationError, LogError, RecordTooLargeError
from choreo.log.kafka import KafkaLog
from choreo.log.port import NewRecord, Topic
from tests.conftest import started
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.kafka


class GuardedServer(KafkaServer):
    """A broker that asks who one is."""

    def __init__(self):
        super().__init__(scram_users={"svc": "right"})


@pytest.fixture(scope="module")
def guarded():
    yield from started(GuardedServer)


def login(password):
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "svc",
        "sasl.password": password,
    }


def allow(server, kind, name, operation):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    acl = AclBinding(kind, name, ResourcePatternType.LITERAL, "User:svc", "*", operation, AclPermissionType.ALLOW)
    for future in admin.create_acls([acl]).values():
        future.result(10)


async def test_a_wrong_password_is_told_with_the_user_and_without_the_password(guarded):
    with pytest.raises(LogError) as refused:
        async with KafkaLog.at(f"kafka://{guarded.sasl_bootstrap}", login("wrong-geheim")):
            pass
    assert "user 'svc'" in str(refused.value)
    assert "sasl.password" in str(refused.value)
    assert "wrong-geheim" not in str(refused.value)


async def test_without_rights_reading_and_appending_name_topic_and_user(guarded):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{guarded.bootstrap}", {}) as log:
        await log.create_topics([Topic(name=topic)])
    allow(guarded, ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    async with KafkaLog.at(f"kafka://{guarded.sasl_bootstrap}", login("right")) as log:
        with pytest.raises(LogError, match=f"{topic}.*user 'svc'.*grant"):
            await log.producer().append([NewRecord(topic, b"k", b"v", [])])
        with pytest.raises(LogError, match=r"user 'svc'.*grant it Read on the group"):
            await log.consumer([topic], group="a-group").poll(1, 60)
        with pytest.raises(LogError, match=f"{topic}.*user 'svc'.*grant it Describe and Read"):
            await log.consumer([topic]).poll(1, 60)
        allow(guarded, ResourceType.TOPIC, topic, AclOperation.READ)
        allow(guarded, ResourceType.TOPIC, topic, AclOperation.WRITE)
        async with asyncio.timeout(60):
            await log.producer().append([NewRecord(topic, b"k", b"v", [])])
            reader = log.consumer([topic])  # needs no right on any group
            assert [r.value for r in await reader.poll(1, 60)] == [b"v"]


async def test_a_record_over_the_topics_limit_is_named_with_size_and_limit(kafka_bootstrap):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {}) as log:
        await log.create_topics([Topic(name=topic, partitions=1, settings={"max.message.bytes": "5000"})])
        for producer in (log.producer(), log.producer(transactional_id=topic)):
            with pytest.raises(RecordTooLargeError) as refused:
                await producer.append(
                    [NewRecord(topic, b"small", b"v", []), NewRecord(topic, b"big", bytes(9_000), [])]
                )
            for part in (topic, "9,003", "5,000", "b'big'", "max.message.bytes"):
                assert part in str(refused.value)


async def test_small_records_that_are_too_large_only_together_are_appended(kafka_bootstrap):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {"linger.ms": "50"}) as log:
        await log.create_topics([Topic(name=topic, partitions=1, settings={"max.message.bytes": "5000"})])
        await log.producer().append([NewRecord(topic, b"%d" % n, bytes(1_000), []) for n in range(20)])
        reader, keys = log.consumer([topic]), set()
        async with asyncio.timeout(60):
            while len(keys) < 20:
                keys |= {r.key for r in await reader.poll()}


@pytest.mark.parametrize(("name", "value"), [("no.such.setting", "1"), ("session.timeout.ms", "soon")])
async def test_a_setting_the_client_does_not_know_is_named(kafka_bootstrap, name, value):
    with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
        async with KafkaLog.at(f"kafka://{kafka_bootstrap}", {name: value}) as log:
            log.consumer(["t"], group="g")

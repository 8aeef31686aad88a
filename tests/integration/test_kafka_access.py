"""What Kafka refuses: connections, logins, rights, sizes, settings. Each in one line that says what to do."""

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import structlog
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from choreo.errors import AccessError, ConfigurationError, LogError, RecordTooLargeError
from choreo.log.kafka import KafkaLog
from choreo.log.port import NewRecord, Topic, TopicPartition
from tests.conftest import started
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_ports

pytestmark = pytest.mark.kafka


class GuardedServer(KafkaServer):
    """A broker that asks who one is."""

    def __init__(self):
        super().__init__(scram_users={"svc": "right"})


@pytest.fixture(scope="module")
def guarded():
    yield from started(GuardedServer)


def login(password="right", **more):  # noqa: S107 - the test broker's own
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "svc",
        "sasl.password": password,
    } | {name.replace("_", "."): value for name, value in more.items()}


def allow(server, kind, name, operation):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    acl = AclBinding(kind, name, ResourcePatternType.LITERAL, "User:svc", "*", operation, AclPermissionType.ALLOW)
    for future in admin.create_acls([acl]).values():
        future.result(10)


async def fresh_topic(server):
    """A topic that only super users see."""
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with KafkaLog.at(f"kafka://{server.bootstrap}", {}) as log:
        await log.create_topics([Topic(name=topic, partitions=1)])
        await log.producer().append([NewRecord(topic, b"k", b"first", [])])
    return topic


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_tls_and_scram_let_the_right_ones_in(guarded, mechanism):
    trust = {"ssl.ca.location": str(guarded.authority.certificate)}
    settings = login(security_protocol="SASL_SSL", sasl_mechanism=mechanism) | trust
    async with KafkaLog.at(f"kafka://{guarded.sasl_ssl_bootstrap}", settings) as log:
        assert await log.topics() is not None


async def test_a_client_may_show_a_certificate_instead(guarded):
    shown = str(guarded.authority.issue("shop"))
    settings = {"security.protocol": "SSL", "ssl.ca.location": str(guarded.authority.certificate)}
    settings |= {"ssl.certificate.location": shown, "ssl.key.location": shown}
    async with KafkaLog.at(f"kafka://{guarded.ssl_bootstrap}", settings) as log:
        assert await log.topics() is not None


def cannot_connect(case, server, folder):
    """An address, client settings, and what the refusal has to say."""
    trust = {"ssl.ca.location": str(server.authority.certificate)}
    return {
        "wrong password": (server.sasl_bootstrap, login("wrong-geheim"), ["User:svc", "sasl.password"]),
        "wrong mechanism": (server.sasl_bootstrap, login(sasl_mechanism="PLAIN"), ["User:svc", "sasl.mechanism"]),
        "untrusted certificate": (
            server.sasl_ssl_bootstrap,
            login(security_protocol="SASL_SSL", ssl_ca_location=str(Authority(folder).certificate)),
            ["certificate verify failed", "set ssl.ca.location"],
        ),
        "TLS at a plaintext port": (
            server.sasl_bootstrap,
            login(security_protocol="SASL_SSL") | trust,
            ["the port speaks no TLS", "security.protocol"],
        ),
        "plaintext at a TLS port": (server.sasl_ssl_bootstrap, login(), ["may want TLS", "security.protocol"]),
        "no login at a port that wants one": (server.sasl_bootstrap, {}, ["a login", "security.protocol"]),
        "no certificate where one is wanted": (
            server.ssl_bootstrap,
            {"security.protocol": "SSL"} | trust,
            ["ssl.certificate.location"],
        ),
        "nobody there": (f"127.0.0.1:{free_ports(1)[0]}", {}, ["Connection refused", "correct CHOREO_LOG"]),
    }[case]


REFUSALS = [
    "wrong password",
    "wrong mechanism",
    "untrusted certificate",
    "TLS at a plaintext port",
    "plaintext at a TLS port",
    "no login at a port that wants one",
    "no certificate where one is wanted",
    "nobody there",
]


@pytest.mark.parametrize("case", REFUSALS)
def test_who_cannot_connect_reads_one_line_that_says_what_to_do(guarded, tmp_path, case):
    address, settings, parts = cannot_connect(case, guarded, tmp_path)
    choreo = [str(Path(sys.executable).parent / "choreo"), "topics", "list", "--log", f"kafka://{address}"]
    environment = {"CHOREO_KAFKA": json.dumps(settings), "CHOREO_LOG_FORMAT": "json"}
    done = subprocess.run(choreo, capture_output=True, text=True, env=environment, check=False, timeout=60)
    (line,) = done.stderr.splitlines()
    assert line.startswith("choreo: ")
    assert address in line
    assert [part for part in parts if part not in line] == []
    assert "geheim" not in line
    assert done.returncode == (1 if case.startswith("wrong") else 3)


async def test_every_right_that_is_lacking_is_named_with_the_command_that_grants_it(guarded):
    topic = await fresh_topic(guarded)
    place, record = TopicPartition(topic, 0), NewRecord(topic, b"k", b"v", [])
    async with KafkaLog.at(f"kafka://{guarded.sasl_bootstrap}", login()) as log:
        transactional = log.producer(transactional_id=topic)
        for work, operation, resource in [
            (lambda: log.create_topics([Topic(name="new")]), "Create", "topic new"),
            (lambda: log.beginning_offsets([place]), "Describe", f"topic {topic}"),
            (lambda: log.committed("some-group", [place]), "Describe", "group some-group"),
            (lambda: log.producer().append([record]), "Write", f"topic {topic}"),
            (lambda: transactional.append_atomically([record]), "Write", f"transactional-id {topic}"),
            (lambda: log.consumer([topic]).poll(1, 60), "Read", f"topic {topic}"),
        ]:
            with pytest.raises(AccessError) as refused:
                await work()
            assert f"principal User:svc lacks {operation.upper()} on {resource}" in str(refused.value)
            assert f"--add --allow-principal User:svc --operation {operation} --{resource}" in str(refused.value)


async def test_a_member_says_what_it_lacks_and_works_as_soon_as_it_is_granted(guarded):
    topic = await fresh_topic(guarded)
    group = f"group-of-{topic}"
    async with KafkaLog.at(f"kafka://{guarded.sasl_bootstrap}", login()) as log:
        with structlog.testing.capture_logs() as lines:
            consumer = log.consumer([topic], group=group)
            for kind, name, operation in [
                (ResourceType.TOPIC, topic, AclOperation.DESCRIBE),
                (ResourceType.GROUP, group, AclOperation.READ),
                (ResourceType.TOPIC, topic, AclOperation.READ),
            ]:
                wanted = f"{'group' if kind is ResourceType.GROUP else 'topic'} {name}"
                async with asyncio.timeout(60):
                    while not any("kafka_refuses" in line["event"] and wanted in line["reason"] for line in lines):
                        assert await consumer.poll(1, 0.1) == []
                allow(guarded, kind, name, operation)
            async with asyncio.timeout(60):
                (record,) = await consumer.poll(1)
        assert record.value == b"first"
        assert len(lines) == len({line["reason"] for line in lines}), "nothing is said twice within half a minute"


async def test_a_producer_works_as_soon_as_it_may(guarded):
    topic = await fresh_topic(guarded)
    record = NewRecord(topic, b"k", b"second", [])
    async with KafkaLog.at(f"kafka://{guarded.sasl_bootstrap}", login()) as log:
        for producer, kind in [
            (log.producer(), ResourceType.TOPIC),
            (log.producer(transactional_id=topic), ResourceType.TRANSACTIONAL_ID),
        ]:
            with pytest.raises(AccessError):
                await producer.append([record])
            allow(guarded, kind, topic, AclOperation.WRITE)
            async with asyncio.timeout(60):
                while True:
                    try:
                        await producer.append([record])
                        break
                    except LogError:  # the broker has not heard of it yet
                        await asyncio.sleep(0.1)
        allow(guarded, ResourceType.TOPIC, topic, AclOperation.READ)
        reader = log.consumer([topic])  # needs no right on any group
        async with asyncio.timeout(60):
            assert (await reader.poll(1))[0].value == b"first"


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

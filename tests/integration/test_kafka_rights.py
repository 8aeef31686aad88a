"""A service on a broker with access control: exactly the rights that `choreo topics plan --acls` lists, and one less."""

import asyncio
import contextlib
import uuid
from itertools import count
from pathlib import Path

import pytest
import structlog
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from choreo import Event, Retry, Service, Settings, connect
from choreo.choreography import Choreography
from choreo.cli.topic_plan import rights_of
from choreo.log import Topic, TopicPartition, open_log
from choreo.runtime.run import run_services
from services.shop import services as shop
from services.shop.orders_generator import orders
from tests.conftest import started
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.kafka
LOGIN = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "SCRAM-SHA-256",
    "sasl.username": "svc",
    "sasl.password": "right",
    "session.timeout.ms": "6000",
}
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


class GuardedServer(KafkaServer):
    """A broker that lets nobody do anything without a right."""

    def __init__(self):
        super().__init__(scram_users={"svc": "right"})


@pytest.fixture(scope="module")
def guarded():
    yield from started(GuardedServer)


async def granted(server, rights):
    """Give svc these rights and no others, and wait until the broker knows."""
    rights = list(dict.fromkeys(rights))
    _grant(server, rights)
    topics = {right.name for right in rights if right.kind == "topic"}
    async with open_log(f"kafka://{server.sasl_bootstrap}", LOGIN) as log:

        async def seen():
            return topics <= (await log.topics()).keys()

        await until(seen)


def _grant(server, rights):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    for future in admin.delete_acls([every]).values():
        future.result(10)
    acls = [
        AclBinding(
            KINDS[right.kind],
            right.name,
            ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
            "User:svc",
            "*",
            AclOperation[right.operation.upper()],
            AclPermissionType.ALLOW,
        )
        for right in rights
    ]
    for future in admin.create_acls(acls).values():
        future.result(10)


@contextlib.asynccontextmanager
async def at_work(services, server, folder):
    """`choreo run` as svc; what it logs."""
    store, registry = f"sqlite:///{folder}/{{service}}.db", str(folder / "schemas")
    settings = Settings(
        log=f"kafka://{server.sasl_bootstrap}", kafka=LOGIN, store=store, registry=registry, stop_grace=1
    )
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as lines:
        running = asyncio.ensure_future(run_services(services, settings, stop=stop))
        try:
            yield lines
        finally:
            stop.set()
            async with asyncio.timeout(60):
                await running


def complaints(lines):
    """What was refused, as far as it was logged."""
    return [text for line in lines for text in map(str, line.values()) if " lacks " in text]


async def until(condition):
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the log tells nobody of its end
            await asyncio.sleep(0.05)


NAMES = (f"{number}-{uuid.uuid4().hex[:8]}" for number in count())


def every_right(*, transactional):
    """A service that comes to use each of its rights: it answers, tries again later, and gives up."""
    name = next(NAMES)

    class Asked(Event, topic=f"asked-{name}", key="id"):
        id: str

    class Answered(Event, topic=f"answered-{name}", key="id"):
        id: str

    service, tried = Service(f"oracle-{name}", transactional=transactional), set()

    @service.on(Asked, retry=Retry(delay="20ms", in_place="0s", transient=(OSError,)))
    async def answer(asked: Asked) -> Answered:
        if asked.id == "later" and asked.id not in tried:
            tried.add(asked.id)
            raise OSError("try again")
        if asked.id == "never":
            raise ValueError("no")
        return Answered(id=asked.id)

    retried = [] if transactional else [f"retry.{service.name}"]
    return service, Asked, [f"answered-{name}"] * 2 + [f"dlq.{service.name}"] + retried


async def ask_all(server, folder, service, asked):
    """Topics, and one event of each sort."""
    (folder / "schemas").mkdir(exist_ok=True)
    settings = Settings(log=f"kafka://{server.bootstrap}", registry=str(folder / "schemas"), create_topics=True)
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=name, partitions=1) for name in Choreography.of([service]).topics])
        async with connect(settings, log=log) as bus:
            for what in ("now", "later", "never"):
                await bus.publish(asked(id=what))


def done(server, topics):
    """A condition: so many records lie in these topics."""

    async def look():
        async with open_log(f"kafka://{server.bootstrap}") as log:
            ends = await log.end_offsets({TopicPartition(topic, 0) for topic in topics})
        return all(ends[TopicPartition(topic, 0)] >= topics.count(topic) for topic in topics)

    return look


RIGHTS = {transactional: rights_of(every_right(transactional=transactional)[0]) for transactional in (False, True)}


@pytest.mark.parametrize("transactional", [False, True], ids=["with a store", "transactional"])
async def test_a_service_works_with_exactly_its_rights(guarded, tmp_path, transactional):
    service, asked, expected = every_right(transactional=transactional)
    await ask_all(guarded, tmp_path, service, asked)
    await granted(guarded, rights_of(service))
    async with at_work([service], guarded, tmp_path) as lines:
        await until(done(guarded, expected))
    assert complaints(lines) == []


@pytest.mark.parametrize(
    ("transactional", "number"),
    [(transactional, number) for transactional, rights in RIGHTS.items() for number in range(len(rights))],
)
async def test_without_one_of_its_rights_it_names_that_one_and_goes_on_when_it_is_granted(
    guarded, tmp_path, transactional, number
):
    service, asked, expected = every_right(transactional=transactional)
    await ask_all(guarded, tmp_path, service, asked)
    rights = rights_of(service)
    lacking = rights[number]
    await granted(guarded, [right for right in rights if right != lacking])
    async with at_work([service], guarded, tmp_path) as lines:

        async def told():
            return any(f"on {lacking.kind} {lacking.name}" in complaint for complaint in complaints(lines))

        await until(told)
        await granted(guarded, rights)
        await until(done(guarded, expected))


async def test_the_shop_works_with_exactly_its_rights(guarded, tmp_path):
    async with open_log(f"kafka://{guarded.bootstrap}") as log:
        topics = Choreography.of(shop).topics
        await log.create_topics([Topic(name=name, partitions=1) for name in topics])
    (tmp_path / "schemas").symlink_to(Path(__file__).parents[2] / "schemas")
    await granted(guarded, [right for service in shop for right in rights_of(service)])
    settings = Settings(log=f"kafka://{guarded.bootstrap}", registry=str(tmp_path / "schemas"))
    async with at_work(shop, guarded, tmp_path) as lines:
        async with connect(settings) as bus:
            for order in orders(7, 5):
                await bus.publish(order)
        await until(done(guarded, ["shipping"] * 3))
    assert complaints(lines) == []

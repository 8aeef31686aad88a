"""What goes wrong in production: bad records, bad handlers, and everything around the service being away or full.

Each ends in a clear error or a dead letter; nothing is lost, and nobody else is held up.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from choreo import Bus, Context, Event, Service, connect
from choreo.errors import LogUnavailableError, RecordTooLargeError, StoreOwnedError
from choreo.log import open_log
from choreo.log.port import NewRecord, Record, Topic
from choreo.runtime.run import running
from choreo.wire import Codec, open_registry
from choreo.wire.schema import schema_of
from tests.integration.registry_server import RegistryServer
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, World, effects_service
from tests.servers.process import free_ports
from tests.support import eventually

UNKNOWN_ID = (123_456_789).to_bytes(4, "big")


async def good_record(world: World, key: str = "good") -> Record:
    """A record as choreo writes it, to be spoiled."""
    await world.publish(Placed(id=key))
    return next(record for record in await world.records("orders") if record.key == key.encode())


def with_header(record: Record, name: str, value: bytes) -> list[tuple[str, bytes]]:
    return [(other, value if other == name else text) for other, text in record.headers]


async def schema_framing(world: World, event: type[Event]) -> bytes:
    """What begins the values of this event: its schema's id."""
    registry = open_registry(str(world.folder / "schemas"))
    schema_id = await registry.register(f"{event.contract.topics[0]}-{event.contract.type_name}", schema_of(event))
    await registry.aclose()
    return b"\0" + schema_id.to_bytes(4, "big")


async def spoiled(world: World, kind: str) -> NewRecord:
    """A record that is wrong in this way."""
    good = await good_record(world)
    value, headers = good.value or b"", good.headers
    unhandled = with_header(good, "ce_id", b"bad")
    paid = await schema_framing(world, Paid)
    return {
        "garbage": NewRecord("orders", b"bad", b"\xde\xad\xbe\xef" * 9, unhandled),
        "garbage without headers": NewRecord("orders", b"bad", b"\xde\xad\xbe\xef" * 9, []),
        "empty": NewRecord("orders", b"bad", b"", unhandled),
        "null": NewRecord("orders", b"bad", None, unhandled),
        "half a framing": NewRecord("orders", b"bad", b"\0\0", unhandled),
        "framing alone": NewRecord("orders", b"bad", value[:5], unhandled),
        "cut short": NewRecord("orders", b"bad", value[:-2], unhandled),
        "bytes left": NewRecord("orders", b"bad", value + b"more", unhandled),
        "unknown schema id": NewRecord("orders", b"bad", b"\0" + UNKNOWN_ID + value[5:], unhandled),
        "unknown schema guid": NewRecord("orders", b"bad", b"\1" + b"g" * 16 + value[5:], unhandled),
        "another event's schema": NewRecord("orders", b"bad", paid + value[5:], unhandled),
        "a key that is no UTF-8": NewRecord("orders", b"\xff\xfe", value, unhandled),
        "a header that is no UTF-8": NewRecord("orders", b"bad", value, with_header(good, "ce_id", b"\xff\xfe")),
        "a type that is no UTF-8": NewRecord("orders", b"bad", value, with_header(good, "ce_type", b"\xff")),
        "json that is none": NewRecord(
            "orders", b"bad", b"{", [("content-type", b"application/json"), ("ce_type", b"Placed")]
        ),
        "no headers": NewRecord("orders", b"bad", value, []),
        "a guid's header": NewRecord(
            "orders", b"bad", value, [*headers[:-1], ("__value_schema_id", b"x"), ("ce_id", b"i")]
        ),
    }[kind]


BAD = [
    "garbage",
    "garbage without headers",
    "empty",
    "null",
    "half a framing",
    "framing alone",
    "cut short",
    "bytes left",
    "unknown schema id",
    "unknown schema guid",
    "another event's schema",
    "a key that is no UTF-8",
    "a header that is no UTF-8",
    "a type that is no UTF-8",
    "json that is none",
    "a guid's header",
]


@pytest.mark.parametrize("kind", BAD)
async def test_a_record_that_is_no_event_is_a_dead_letter_as_it_was(memory_world, kind):
    service = effects_service()
    async with memory_world.running(service) as instances:
        bad = await spoiled(memory_world, kind)
        after = [Placed(id=f"after{n}") for n in range(8)]
        await memory_world.log.producer().append([bad])
        await memory_world.publish(*after)
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.handled == 9, "the good one and those after the bad one"
    ((headers, letter),) = await memory_world.letters("payments")
    assert (letter.key, letter.value) == (bad.key, bad.value)
    assert letter.headers[: len(bad.headers)] == bad.headers
    assert headers["choreo.dlq.stage"] == "decode"
    assert headers["__dlq.errors.topic"] == "orders"
    assert "orders/" in headers["__dlq.errors.message"] or "schema" in headers["__dlq.errors.message"]
    assert "\n" not in headers["__dlq.errors.message"]
    assert headers["choreo.dlq.exception"].startswith("choreo.errors.")


async def test_a_record_without_headers_is_still_the_event_its_schema_says(world):
    service = effects_service()
    async with world.running(service):
        await world.log.producer().append([await spoiled(world, "no headers")])
        await world.read_to_the_end(service)
    assert world.rows("payments") == [("good", 0)] * 2, "it has no id, so it is not known to be a copy"
    assert await world.records("dlq.payments") == []


async def test_an_event_of_a_type_nobody_here_handles_is_passed_over(memory_world):
    class Other(Event, topic="orders", key="id"):
        id: str

    service = effects_service()
    async with memory_world.running(service) as instances:
        await memory_world.publish(Other(id="o"), Placed(id="o"))
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.handled == 1
    assert await memory_world.records("dlq.payments") == []


async def test_a_validator_that_raises_what_it_likes_spoils_its_own_record_only(memory_world):
    import pydantic

    class Checked(Event, topic="orders", key="id"):
        id: str

        @pydantic.field_validator("id")
        @classmethod
        def check(cls, value: str) -> str:
            if value == "bad" and reading:
                raise RuntimeError("the validator's own trouble")
            return value

    service, reading, handled = Service("payments"), False, []

    @service.on(Checked)
    async def look(event) -> None:
        handled.append(event.id)

    await memory_world.publish(Checked(id="bad"), Checked(id="good"))
    reading = True
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert handled == ["good"]
    ((headers, _),) = await memory_world.letters("payments")
    assert "the validator's own trouble" in headers["__dlq.errors.message"]


# --- ten megabytes ----------------------------------------------------------------------------------------------------

TEN_MB = 10_000_000


async def test_ten_megabytes_are_refused_where_they_are_published(world):
    async with connect(world.settings(), log=world.log) as bus:
        with pytest.raises(RecordTooLargeError, match=r"orders.*bytes.*limit.*send a reference") as refusal:
            await bus.publish(Placed(id="x" * TEN_MB))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


async def test_ten_megabytes_that_a_handler_emits_are_a_dead_letter_of_what_it_handled(world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 0)", (order.id,))
        return Paid(id="x" * TEN_MB if order.id == "large" else order.id)

    async with world.running(service):
        await world.publish(Placed(id="large"), Placed(id="small"))
        await world.read_to_the_end(service)
    ((headers, letter),) = await world.letters("payments")
    assert letter.key == b"large"
    assert headers["choreo.dlq.stage"] == "emit"
    assert world.rows("payments") == [("small", 0)]


async def test_ten_megabytes_of_garbage_leave_a_dead_letter_that_says_where_they_are(world):
    service = effects_service()
    await world.log.create_topics([Topic(name="orders", partitions=1, settings={"max.message.bytes": str(2 * TEN_MB)})])
    async with world.running(service):
        await world.log.producer().append([NewRecord("orders", b"bad", b"\xff" * TEN_MB, [("x", b"1")])])
        await world.publish(Placed(id="after"))
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    ((headers, letter),) = await world.letters("payments")
    assert letter.value is None
    assert letter.key == b"bad"
    assert headers["choreo.dlq.value-omitted"] == f"{TEN_MB} bytes; the original is at orders/0@0"
    assert headers["x"] == "1"
    assert world.rows("payments") == [("after", 0)]


async def test_headers_too_large_for_the_log_do_not_stop_the_dead_letters(world):
    service = effects_service()
    await world.log.create_topics([Topic(name="orders", partitions=1, settings={"max.message.bytes": str(2 * TEN_MB)})])
    async with world.running(service):
        await world.log.producer().append([NewRecord("orders", b"bad", b"\xff", [("x", b"h" * TEN_MB)])])
        await world.publish(Placed(id="after"))
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    ((headers, _),) = await world.letters("payments")
    assert "choreo.dlq.headers-omitted" in headers
    assert "x" not in headers


# --- the registry -----------------------------------------------------------------------------------------------------


async def test_while_the_registry_is_down_records_wait_and_none_becomes_a_dead_letter(world, monkeypatch):
    monkeypatch.setattr("choreo.runtime.decoding._FIRST_DELAY", 0.01)
    monkeypatch.setattr("choreo.runtime.decoding._MAX_DELAY", 0.02)

    class NewerPlaced(Event, topic="orders", key="id", name="Placed"):
        id: str
        n: int = 0
        note: str | None = None

    service = effects_service()
    with RegistryServer() as registry:
        settings = {"registry": registry.url}
        async with world.running(service, **settings) as instances:
            async with connect(world.settings(**settings), log=world.log) as bus:
                await bus.publish(Placed(id="known"))
                await world.read_to_the_end(service)
                codec = Codec(open_registry(registry.url))
                await codec.prepare(writes=[NewerPlaced], reads=[])
                asked = registry.asked
                await codec._registry.aclose()
                await bus._prepare({NewerPlaced})
                registry.stop()
                await bus.publish(NewerPlaced(id="new", note="its schema has yet to be fetched"))
                await bus.publish(Placed(id="new", n=2))
            await asyncio.sleep(0)
            assert len(world.rows("payments")) == 1
            registry.start()
            await world.read_to_the_end(service)
            assert registry.asked > asked
            assert instances["payments"].stats.dead_letters == 0
    assert world.rows("payments") == [("known", 0), ("new", 0), ("new", 2)]
    assert await world.records("dlq.payments") == []


async def test_a_registry_that_knows_no_such_schema_makes_a_dead_letter(memory_world):
    with RegistryServer() as registry:
        service = effects_service()
        async with memory_world.running(service, registry=registry.url):
            record = NewRecord("orders", b"bad", b"\0" + UNKNOWN_ID + b"x", [("ce_type", b"Placed")])
            await memory_world.log.producer().append([record])
            await memory_world.read_to_the_end(service)
    ((headers, _),) = await memory_world.letters("payments")
    assert "123456789" in headers["__dlq.errors.message"]
    assert headers["choreo.dlq.stage"] == "decode"


# --- what is around it ------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_down_at_start_is_one_clear_line(tmp_path):
    (port,) = free_ports(1)
    settings = World(None, tmp_path).settings(log=f"kafka://127.0.0.1:{port}")  # type: ignore[arg-type]
    with pytest.raises(LogUnavailableError) as refusal:
        async with running([effects_service()], settings):
            pass
    assert f"127.0.0.1:{port}" in str(refusal.value)
    assert refusal.value.remedy
    assert "\n" not in str(refusal.value)


async def test_the_second_service_of_one_store_is_told_why_not(memory_world):
    store = f"sqlite:///{memory_world.folder}/shared.db"
    with pytest.raises(
        StoreOwnedError, match=r"belongs to service 'payments', so service 'shipping' cannot.*CHOREO_STORE"
    ):
        async with memory_world.running(effects_service("payments"), effects_service("shipping"), store=store):
            pass
    async with memory_world.running(effects_service("payments"), store=store):
        pass


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond this size: a disk that is full for large files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Bulk(Event, topic="bulk", key="id"):
    """Fills disks."""

    id: str
    text: str


async def fill(bus: Bus, size: int) -> None:
    for number in range(100):
        await bus.publish(Bulk(id=f"{size}-{number}", text="x" * size))


async def test_a_full_disk_under_the_log_is_waited_out_and_the_outbox_keeps_what_is_emitted(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("choreo.runtime.publisher._FIRST_DELAY", 0.01)
    monkeypatch.setattr("choreo.runtime.publisher._MAX_DELAY", 0.02)
    service, gate = Service("payments", tables=TABLES), asyncio.Event()

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await gate.wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        world = World(log, tmp_path)
        async with world.running(service) as instances, connect(world.settings(), log=log) as bus:
            await bus.publish_many([Placed(id=f"o{n}", n=n) for n in range(12)])
            await bus.publish(Bulk(id="b", text=""))
            with files_up_to(2_000_000):
                for size in (100_000, 10_000, 10):  # until not even a small one has room
                    with pytest.raises(LogUnavailableError, match=r"log\.db.*disk") as refusal:
                        await fill(bus, size)
                    assert "\n" not in str(refusal.value)
                written = len(await world.records("bulk"))
                gate.set()
                await eventually(lambda: instances["payments"].stats.handled == 12)
                await eventually(lambda: len(world.rows("payments")) == 12)
                assert await world.records("payments") == []
                assert world.rows("payments", "SELECT * FROM choreo_outbox")
            await world.read_to_the_end(service)
            await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
            await bus.publish(Bulk(id="again", text="there is room"))
        assert len(await world.records("payments")) == 12
        assert len(await world.records("bulk")) == written + 1, "what was refused is not there"
        assert await world.records("dlq.payments") == []
    for name in ("log.db", "payments.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- the same on Kafka ------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_bad_records_on_kafka_are_dead_letters_and_hold_up_nobody(kafka_bootstrap, tmp_path):
    topic, name = f"orders-{uuid4().hex[:8]}", f"payments-{uuid4().hex[:8]}"

    class Order(Event, topic=topic, key="id", name="Placed"):
        id: str

    service, handled = Service(name), []

    @service.on(Order, retry=AT_ONCE)
    async def look(order) -> None:
        if order.id == "raises":
            raise ValueError("no")
        handled.append(order.id)

    url = f"kafka://{kafka_bootstrap}"
    async with open_log(url) as log:
        world = World(log, tmp_path)
        async with world.running(service, log=url, create_topics=True):
            async with connect(world.settings(log=url, create_topics=True), log=log) as bus:
                await bus.publish(Order(id="first"))
                (good,) = await world.records(topic)
                bad = [
                    NewRecord(topic, b"bad", b"\xde\xad\xbe\xef", [("x", b"\xff")]),
                    NewRecord(topic, b"bad", None, good.headers),
                    NewRecord(topic, b"bad", b"\0" + UNKNOWN_ID, good.headers),
                    NewRecord(topic, b"\xff\xfe", good.value, good.headers),
                    NewRecord(topic, b"bad", good.value, with_header(good, "ce_id", b"\xff")),
                ]
                await log.producer().append(bad)
                await bus.publish_many([Order(id="raises"), *(Order(id=f"o{n}") for n in range(20))])
                with pytest.raises(RecordTooLargeError):
                    await bus.publish(Order(id="x" * TEN_MB))
            await world.read_to_the_end(service)
            await eventually(lambda: world.rows(name, "SELECT * FROM choreo_outbox") == [])
        letters = await world.letters(name)
    assert sorted(handled) == sorted(["first", *(f"o{n}" for n in range(20))])
    stages = sorted((headers["choreo.dlq.stage"], record.key or b"") for headers, record in letters)
    assert stages == [("decode", b"bad")] * 4 + [("decode", b"\xff\xfe"), ("handle", b"raises")]

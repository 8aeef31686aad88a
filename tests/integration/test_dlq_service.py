"""From a handler that fails to the key that is released: services at work, and what `choreo dlq` does to them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from choreo import Event, Retry, Service, connect
from choreo.cli import main
from choreo.dlq import DeadLetter, Pace, Reason, Report, Selection, dead_letters
from choreo.errors import LogUnavailableError
from choreo.log import NewRecord, Record, Topic, open_log
from tests.integration.runtime_faults import Faults, FaultyLog, plant
from tests.integration.runtime_world import TABLES, Paid, Placed, World, crash
from tests.support import eventually
from tests.unit.dlq import samples

ONCE = Retry(attempts=1)
REDRIVEN = Reason(kind="redriven", by="ada", why="mended")
DISCARDED = Reason(kind="discarded", by="ada", why="a test order")


class Payments:
    """A service whose handler refuses the orders with these numbers."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.service = Service("payments", tables=TABLES)

        @self.service.on(Placed, retry=ONCE)
        async def pay(order: Placed, ctx: Any) -> Paid:
            if order.n in self.broken:
                raise ValueError(f"order {order.n}")
            await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
            return Paid(id=order.id, n=order.n)


@pytest.fixture
def payments() -> Payments:
    return Payments()


async def open_letters(world: World, service: str = "payments") -> list[DeadLetter]:
    async with dead_letters(world.log, service=service) as letters:
        return letters.select(Selection(state="open"))


async def resolve(world: World, reason: Reason, pace: Pace | None = None, **chosen: Any) -> Report:
    selection = Selection(**(chosen or {"service": "payments"}))
    async with dead_letters(world.log, service=selection.service, values_of=selection) as letters:
        return [report async for report in letters.resolve(selection, reason, pace)][-1]


async def effects(world: World, *expected: tuple[str, int]) -> None:
    """Wait until just these orders have had their effect, each key's in this order."""

    def so() -> bool:
        rows = world.rows("payments")
        return len(rows) == len(expected) and all(
            [row for row in rows if row[0] == key] == [row for row in expected if row[0] == key]
            for key in {row[0] for row in rows}
        )

    await eventually(so, lambda: f"{expected} of {world.rows('payments')}")


async def one_open(world: World, redrives: int, service: str = "payments") -> DeadLetter:
    async def found() -> DeadLetter | None:
        letters = await open_letters(world, service)
        return letters[0] if [letter.redrives for letter in letters] == [redrives] else None

    return await eventually(found, f"one dead letter, redriven {redrives} times")


async def failed_once(world: World, payments: Payments) -> DeadLetter:
    """Order 0 of key `a` is a dead letter, 1 and 2 wait behind it, key `b` has gone on."""
    payments.broken = {0}
    await world.publish(*(Placed(id="a", n=n) for n in range(3)), Placed(id="b", n=7))
    letter = await one_open(world, 0)
    await effects(world, ("b", 7))
    await world.read_to_the_end(payments.service)
    assert letter.parked
    return letter


async def test_redriven_the_record_is_handled_and_its_followers_come_after_it(world, payments):
    async with world.running(payments.service):
        letter = await failed_once(world, payments)
        payments.broken = set()
        report = await resolve(world, REDRIVEN, Pace(canary=1), ids=(letter.id,))
        assert (report.resolved, report.failed_again, report.stopped) == (1, 0, "")
        await effects(world, ("b", 7), ("a", 0), ("a", 1), ("a", 2))
        assert await open_letters(world) == []
        await world.publish(Placed(id="a", n=3))
        await effects(world, ("b", 7), ("a", 0), ("a", 1), ("a", 2), ("a", 3))


async def test_what_fails_again_comes_back_with_its_count_and_the_key_goes_on_waiting(world, payments):
    async with world.running(payments.service):
        letter = await failed_once(world, payments)
        report = await resolve(world, REDRIVEN, Pace(canary=1), ids=(letter.id,))
        assert (report.failed_again, report.stopped) == (1, "1 of 1 failed again")
        again = await one_open(world, 1)
        assert (again.place, again.first_failed_ms) == (letter.place, letter.first_failed_ms)
        assert again.parked
        await effects(world, ("b", 7))
        payments.broken = set()
        await resolve(world, REDRIVEN)
        await effects(world, ("b", 7), ("a", 0), ("a", 1), ("a", 2))
        assert await open_letters(world) == []


async def test_discarded_the_record_is_left_out_and_its_followers_go_on(world, payments):
    async with world.running(payments.service):
        letter = await failed_once(world, payments)
        await resolve(world, DISCARDED, ids=(letter.id,))
        await effects(world, ("b", 7), ("a", 1), ("a", 2))
        payments.broken = set()
        await world.publish(Placed(id="a", n=3))
        await effects(world, ("b", 7), ("a", 1), ("a", 2), ("a", 3))


async def test_a_follower_that_fails_is_the_next_dead_letter_of_its_key(world, payments):
    async with world.running(payments.service):
        letter = await failed_once(world, payments)
        payments.broken = {1}
        await resolve(world, REDRIVEN, ids=(letter.id,))
        await effects(world, ("b", 7), ("a", 0))
        next_one = await one_open(world, 0)
        assert next_one.place != letter.place
        payments.broken = set()
        await resolve(world, REDRIVEN)
        await effects(world, ("b", 7), ("a", 0), ("a", 1), ("a", 2))


async def test_redriven_while_the_service_is_down_it_is_handled_when_it_comes(world, payments):
    async with world.running(payments.service):
        letter = await failed_once(world, payments)
    report = await resolve(world, REDRIVEN, Pace(canary=1, wait=0.1), ids=(letter.id,))
    assert report.stopped
    payments.broken = set()
    async with world.running(payments.service):
        await effects(world, ("b", 7), ("a", 0), ("a", 1), ("a", 2))


async def test_the_whole_way_by_the_command_line(tmp_path, payments, monkeypatch, capsys):
    monkeypatch.setenv("CHOREO_LOG", f"sqlite:///{tmp_path}/log.db?synchronous=normal")
    monkeypatch.setenv("CHOREO_REGISTRY", str(tmp_path / "schemas"))

    async def choreo(*args: str) -> int:
        return await asyncio.to_thread(main, ["dlq", *args])

    async with open_log(f"sqlite:///{tmp_path}/log.db?synchronous=normal") as log:
        world = World(log, tmp_path)
        async with world.running(payments.service):
            letter = await failed_once(world, payments)
            assert await choreo("edit", letter.id[:8], "--set", "n=5", "--why", "a typing error") == 0
            await effects(world, ("b", 7), ("a", 5), ("a", 1), ("a", 2))
            assert await choreo("stats", "--json") == 0
    assert '"redriven":1,"failed_again":0' in capsys.readouterr().out


async def test_what_could_not_be_read_and_what_others_gave_up_is_handled_too(tmp_path, payments, monkeypatch):
    url = f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    monkeypatch.setenv("CHOREO_LOG", url)
    monkeypatch.setenv("CHOREO_REGISTRY", str(tmp_path / "schemas"))

    async def choreo(*args: str) -> int:
        return await asyncio.to_thread(main, ["dlq", *args, "--why", "now we can"])

    def copy(record: Record, id_: str) -> list[tuple[str, bytes]]:
        return [(name, id_.encode() if name == "ce_id" else value) for name, value in record.headers]

    async with open_log(url) as log:
        world = World(log, tmp_path)
        async with world.running(payments.service):
            await world.publish(Placed(id="a", n=0))
            await effects(world, ("a", 0))
            (good,) = await world.records("orders")
            producer = log.producer()
            await producer.append([NewRecord("orders", b"a", b"garbage", copy(good, "cut"))])
            letter = await one_open(world, 0)
            assert (letter.kind, letter.handler) == ("undecodable", "")
            (tmp_path / "whole.json").write_text('{"id": "a", "n": 1}')
            assert await choreo("edit", letter.id, "--value", str(tmp_path / "whole.json")) == 0
            await effects(world, ("a", 0), ("a", 1))
            await log.create_topics([Topic(name="orders.DLT")])
            await producer.append([NewRecord("orders.DLT", b"a", good.value, [*copy(good, "spring"), *samples.SPRING])])
            assert await choreo("redrive", "--topic", "orders.DLT", "--service", "payments", "--canary", "1") == 0
            await effects(world, ("a", 0), ("a", 1), ("a", 0))


@pytest.mark.kafka
async def test_the_same_on_kafka(kafka_bootstrap, tmp_path):
    topic, name, url = f"orders-{uuid4().hex[:8]}", f"payments-{uuid4().hex[:8]}", f"kafka://{kafka_bootstrap}"

    class Order(Event, topic=topic, key="id"):
        id: str
        n: int

    service, handled, broken = Service(name), list[tuple[str, int]](), {0, 1}

    @service.on(Order, retry=ONCE)
    async def pay(order: Any) -> None:
        if order.n in broken:
            raise ValueError(f"order {order.n}")
        handled.append((order.id, order.n))

    async with open_log(url) as log:
        world = World(log, tmp_path)
        async with world.running(service, log=url, create_topics=True):
            async with connect(world.settings(log=url, create_topics=True), log=log) as bus:
                await bus.publish_many([*(Order(id="a", n=n) for n in range(4)), Order(id="b", n=7)])
            await one_open(world, 0, name)
            await eventually(lambda: handled == [("b", 7)])
            report = await resolve(world, REDRIVEN, Pace(canary=1), service=name)
            assert (report.resolved, report.failed_again) == (1, 1)
            await one_open(world, 1, name)
            broken.remove(0)
            report = await resolve(world, REDRIVEN, Pace(canary=1), service=name)
            assert report.failed_again == 0
            follower = await one_open(world, 0, name)
            assert handled == [("b", 7), ("a", 0)]
            await resolve(world, DISCARDED, service=name, ids=(follower.id,))
            await eventually(lambda: handled == [("b", 7), ("a", 0), ("a", 2), ("a", 3)], lambda: handled)


# --- a dead letter that cannot be published -------------------------------------------------------------------------------


@pytest.fixture
def faults(monkeypatch) -> Faults:
    faults = Faults()
    plant(monkeypatch, faults)
    return faults


async def test_a_dead_letter_whose_publishing_fails_is_published_later(world, payments, faults):
    payments.broken = {0}
    broken = World(FaultyLog(world.log, faults), world.folder)
    async with broken.running(payments.service) as instances:
        faults.fail("append", LogUnavailableError("the disk is full"), times=3)
        await world.publish(Placed(id="a", n=0), Placed(id="b", n=1))
        letter = await one_open(world, 0)
        assert instances["payments"].stats.dead_letters == 1
        assert faults.counts["append"] > 3
        await effects(world, ("b", 1))
    assert {one.id for one in await open_letters(world)} == {letter.id}


@pytest.mark.parametrize("point", ["append", "appended"])
async def test_a_dead_letter_whose_publishing_dies_is_published_by_the_next_owner(world, payments, faults, point):
    payments.broken = {0}
    broken = World(FaultyLog(world.log, faults), world.folder)
    reached = faults.freeze(point)
    async with broken.running(payments.service) as instances:
        await world.publish(Placed(id="a", n=0), Placed(id="a", n=1))
        await asyncio.wait_for(reached.wait(), 15)
        await crash(instances["payments"])
    faults.none()
    async with world.running(payments.service):
        letter = await one_open(world, 0)
        payments.broken = set()
        await resolve(world, REDRIVEN, ids=(letter.id,))
        await effects(world, ("a", 0), ("a", 1))

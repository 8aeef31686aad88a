"""Outages of what handlers call, handlers that hang, business errors, records that kill the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from choreo import Context, Retry, Service
from choreo.log import open_log
from choreo.log.port import NewRecord, Record
from choreo.runtime.instance import Instance
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_world import AT_ONCE, TABLES, Declined, Paid, Placed, World
from tests.support import eventually


@pytest.fixture
def clock(monkeypatch) -> TurnedClock:
    """The clock of instances started from now on."""
    turned = TurnedClock()
    monkeypatch.setattr("choreo.runtime.instance.SystemClock", lambda: turned)
    return turned


# --- the circuit breaker ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transient", "fatal"])
async def test_an_outage_makes_no_dead_letters_and_afterwards_all_is_handled_in_order(memory_world, clock, kind):
    down, calls = True, []
    retry = Retry(attempts=3, delay="1s", transient=(TimeoutError,))
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=retry)
    async def pay(order: Placed, ctx: Context) -> Paid:
        calls.append((order.id, order.n))
        await asyncio.sleep(0)
        if down:
            raise TimeoutError("gateway") if kind == "transient" else ImportError("a bad deploy")
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        with capture_logs() as logs:
            await memory_world.publish(*(Placed(id=f"k{n % 40}", n=n) for n in range(400)))
            await eventually(
                lambda: instance._lanes.deferred_jobs == 400 - len(_buried(instance)), lambda: instance.stats
            )
            before = len(calls)
            for _ in range(8):
                seen = len(calls)
                clock.turn(30)
                await eventually(lambda seen=seen: len(calls) > seen)
            assert len(calls) - before < 60, "probes, a few at a time"
            down = False
            clock.turn(30)
            await eventually(lambda: instance.stats.handled == 400 - len(_buried(instance)), lambda: instance.stats)
    said = [line["event"].partition(":")[2].strip() or line["event"] for line in logs if "breaker" in line["event"]]
    assert said[0].startswith("most calls fail")
    assert "calls still fail" in said
    assert said[-1] == "calls succeed again"
    buried = {record.key for _, record in await memory_world.letters("payments")}
    assert len(buried) <= (0 if kind == "transient" else 19), "what fell before anyone could know"
    rows = memory_world.rows("payments")
    for key in range(40):
        mine = [n for name, n in rows if name == f"k{key}"]
        assert mine == ([] if f"k{key}".encode() in buried else list(range(key, 400, 40)))


def _buried(instance: Instance) -> range:
    return range(instance.stats.dead_letters * 10)  # each takes its key's ten records with it


async def test_good_records_behind_many_bad_ones_do_not_wait_for_them(memory_world, clock):
    """Bad records of many keys look like an outage; the first good ones show that it is none."""
    service, good, calls = Service("payments"), set(), []

    @service.on(Placed, retry=Retry(attempts=3, delay="1s", max_delay="1s"))
    async def pay(order: Placed) -> None:
        calls.append(order.id)
        if order.id.startswith("bad"):
            raise TimeoutError("gateway")
        good.add(order.id)

    async def probe() -> None:
        """Let the breaker call again."""
        seen = len(calls)
        clock.turn(30)
        await eventually(lambda: len(calls) > seen)

    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        await memory_world.publish(*(Placed(id=f"bad{n}") for n in range(40)))
        await eventually(lambda: instance._lanes.deferred_jobs == 40)
        for _ in range(5):  # the delay has grown
            await probe()
        await memory_world.publish(*(Placed(id=f"good{n}") for n in range(60)))
        await eventually(lambda: instance._lanes.deferred_jobs == 100 - len(good))
        for _ in range(4):  # what waits longer has its turn first
            if len(good) < 60:
                await probe()
        await eventually(lambda: len(good) == 60)
        turns = 0
        while instance.stats.dead_letters < 20:  # once it is closed, attempts count
            clock.turn(1)
            await asyncio.sleep(0.01)
            if instance.stats.dead_letters < 20 and turns % 5 == 0:
                await memory_world.publish(
                    Placed(id=f"more{turns}"), Placed(id=f"even{turns}"), Placed(id=f"and{turns}")
                )
            turns += 1
            assert turns < 500, instance.stats


async def test_one_poison_key_does_not_open_the_breaker(memory_world):
    service = Service("payments")

    @service.on(Placed, retry=AT_ONCE, ordered=False)
    async def pay(order: Placed) -> None:
        raise TimeoutError("gateway")

    async with memory_world.running(service) as instances:
        await memory_world.publish(*(Placed(id="poison", n=n) for n in range(50)))
        await eventually(lambda: instances["payments"].stats.dead_letters == 50)


async def test_another_handler_goes_on_while_one_has_an_outage(memory_world, clock):
    service, works = Service("payments"), []

    @service.on(Placed, retry=Retry(delay="1s"))
    async def fails(order: Placed) -> None:
        raise TimeoutError("gateway")

    @service.on(Paid)
    async def notes(paid: Paid) -> None:
        works.append(paid.n)

    async with memory_world.running(service) as instances:
        await memory_world.publish(*(Placed(id=f"k{n}", n=n) for n in range(100)))
        await eventually(lambda: instances["payments"]._lanes.deferred_jobs == 100)
        await memory_world.publish(*(Paid(id=f"k{n}", n=n) for n in range(100)))
        await eventually(lambda: sorted(works) == list(range(100)))


async def test_records_that_wait_are_bounded_and_the_others_stay_in_the_log(memory_world, clock, monkeypatch):
    """Partitions are paused while too many records wait, and read on when they do not."""
    monkeypatch.setattr("choreo.runtime.backpressure._MOST_WAITING", 40)
    service, down = Service("payments"), True

    @service.on(Placed, retry=Retry(delay="1s"))
    async def pay(order: Placed) -> None:
        if down:
            raise TimeoutError("gateway")

    async with memory_world.running(service, max_in_flight=10) as instances:
        instance, most = instances["payments"], 0
        await memory_world.publish(*(Placed(id=f"k{n}") for n in range(400)))
        await eventually(lambda: instance._pressure._closed and instance._pressure.load >= 10)
        for _ in range(5):
            clock.turn(30)
            await asyncio.sleep(0)
            most = max(most, sum(partition.tracker.open for partition in instance._owned.values()))
        assert most <= 40 + 10
        down = False
        while instance.stats.handled < 400:
            clock.turn(30)
            await asyncio.sleep(0.001)
    assert await memory_world.records("dlq.payments") == []


# --- business errors --------------------------------------------------------------------------------------------------


class DeclinedError(Exception):
    """The gateway says no."""


def declined(order: Placed, error: DeclinedError) -> Declined:
    return Declined(id=order.id)


@pytest.mark.parametrize("make", [declined, lambda order, error: Paid(id=order.id), lambda order, error: 1 / 0])
async def test_a_business_error_becomes_the_declared_failure(memory_world, make):
    service, calls = Service("payments", tables=TABLES), []

    @service.on(Placed, retry=Retry(business={DeclinedError: make}))
    async def pay(order: Placed, ctx: Context) -> Paid | Declined:
        calls.append(order.id)
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        raise DeclinedError("no cover")

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await memory_world.read_to_the_end(service)
        (record,) = await memory_world.records("orders")
        producer = memory_world.log.producer()
        await producer.append([record_copy(record)])
        await producer.close()
        await memory_world.read_to_the_end(service)
        await eventually(lambda: not instances["payments"]._publisher.backlog)
    assert memory_world.rows("payments") == [], "its writes are undone"
    found = [about["type"] for about, _ in await memory_world.events("payments")]
    letters = await memory_world.letters("payments")
    if make is declined:
        assert (found, letters, calls) == (["Declined"], [], ["o"])
    else:
        assert found == []
        assert [headers["choreo.dlq.stage"] for headers, _ in letters] == ["emit"]


def record_copy(record: Record) -> NewRecord:
    return NewRecord(record.topic, record.key, record.value, record.headers)


async def test_business_and_fatal_errors_are_dead_letters_at_once(memory_world):
    service, calls = Service("payments"), []

    @service.on(Placed, retry=Retry(attempts=9, business=(DeclinedError,), fatal=(TypeError,)))
    async def pay(order: Placed) -> None:
        calls.append(order.id)
        raise DeclinedError("no cover") if order.id == "business" else TypeError("a bug")

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="business"), Placed(id="fatal"))
        await memory_world.read_to_the_end(service)
    kinds = {record.key: headers["choreo.dlq.kind"] for headers, record in await memory_world.letters("payments")}
    assert kinds == {b"business": "rejected", b"fatal": "fatal"}
    assert sorted(calls) == ["business", "fatal"]


# --- timeouts ---------------------------------------------------------------------------------------------------------


async def test_a_handler_that_hangs_is_ended_and_tried_again(memory_world, clock):
    service, calls, ended = Service("payments", tables=TABLES), [], []

    @service.on(Placed, retry=Retry(attempts=2, delay=0, max_delay=0, transient=()), timeout="10s")
    async def pay(order: Placed, ctx: Context) -> Paid:
        calls.append(ctx.attempt)
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, ctx.attempt))
        try:
            if order.id == "always" or ctx.attempt == 1:
                await asyncio.Event().wait()
        finally:
            ended.append(order.id)
        return Paid(id=order.id)

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="once"))
        await eventually(lambda: calls == [1])
        for _ in range(20):
            clock.turn(1)
            await asyncio.sleep(0)
        await eventually(lambda: instances["payments"].stats.handled == 1)
        await memory_world.publish(Placed(id="always"))
        await eventually(lambda: len(calls) == 3)
        while not instances["payments"].stats.dead_letters:
            clock.turn(1)
            await asyncio.sleep(0.001)
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [("once", 2)]
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.kind"] == "exhausted"
    assert headers["choreo.dlq.exception"] == "builtins.TimeoutError"
    assert headers["__dlq.errors.message"] == "handler payments.pay was ended after its timeout of 10 s"
    assert ended == ["once", "once", "always", "always"]


async def test_the_thread_of_a_hanging_handler_is_given_up_and_replaced(memory_world, clock):
    service, calls, release = Service("payments", concurrency=2), [], threading.Event()

    @service.on(Placed, retry=Retry(attempts=2, delay=0, max_delay=0), timeout="10s")
    def pay(order: Placed) -> Paid:
        calls.append(order.id)
        if order.id.startswith("bad") and calls.count(order.id) == 1:
            release.wait()
        return Paid(id=order.id)

    async with memory_world.running(service) as instances:
        with capture_logs() as logs:
            await memory_world.publish(Placed(id="bad1"), Placed(id="bad2"))
            await eventually(lambda: len(calls) == 2)
            await memory_world.publish(*(Placed(id=f"good{n}") for n in range(5)))
            while instances["payments"].stats.handled < 7:
                clock.turn(1)
                await asyncio.sleep(0.001)
        release.set()
    assert len([line for line in logs if "given up" in line["event"]]) == 2
    assert len(await memory_world.records("payments")) == 7
    assert calls.count("bad1") == calls.count("bad2") == 2


_HUNG = """
import asyncio, sys, threading
from pathlib import Path
from choreo import Service, Settings
from choreo.log import open_log
from choreo.runtime.run import running
from tests.integration.runtime_world import Placed, World

service, called = Service("payments"), threading.Event()

@service.on(Placed)
def pay(order: Placed) -> None:
    called.set()
    threading.Event().wait()

async def main(folder):
    places = {"store": f"sqlite:///{folder}/{{service}}.db", "registry": f"{folder}/schemas"}
    settings = Settings(log="memory://", stop_grace=0.1, **places)
    async with open_log("memory://") as log, running([service], settings, log=log):
        await World(log, Path(folder)).publish(Placed(id="a"))
        while not called.is_set():
            await asyncio.sleep(0.01)

asyncio.run(main(sys.argv[1]))
print("done")
"""


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", _HUNG, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["done"]), ended.stderr


# --- a record that kills the process ----------------------------------------------------------------------------------

_KILLED = """
import asyncio, os, sys
from pathlib import Path
from choreo import Context, Service, Settings
from choreo.log import open_log
from choreo.runtime.run import run_services
from tests.integration.runtime_world import TABLES, Paid, Placed

folder = sys.argv[1]
service = Service("payments", tables=TABLES)

@service.on(Placed)
async def pay(order: Placed, ctx: Context) -> Paid:
    if order.n == 13:
        os.abort()
    await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
    return Paid(id=order.id, n=order.n)

async def main():
    stop = asyncio.Event()
    settings = Settings(
        log=f"sqlite:///{folder}/log.db", store=f"sqlite:///{folder}/{{service}}.db", registry=f"{folder}/schemas"
    )
    running = asyncio.ensure_future(run_services([service], settings, stop=stop))
    while not (Path(folder) / "stop").exists():
        await asyncio.sleep(0.05)
    stop.set()
    await running

asyncio.run(main())
"""


async def test_a_record_that_kills_the_process_becomes_a_dead_letter(tmp_path: Path):
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        world = World(log, tmp_path)
        await world.publish(*(Placed(id=f"k{n % 5}", n=n) for n in range(30)))
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONFAULTHANDLER": ""}

        async def life() -> int:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _KILLED, str(tmp_path), env=environment, stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            return await child.wait()

        for _ in range(4):
            assert await life() < 0, "it dies"
        last = asyncio.ensure_future(life())

        async def is_buried() -> bool:
            return "dlq.payments" in await log.topics() and bool(await world.records("dlq.payments"))

        await eventually(is_buried)
        await eventually(lambda: len(world.rows("payments")) == 26, lambda: world.rows("payments"))
        (tmp_path / "stop").touch()
        assert await last == 0
        ((headers, record),) = await world.letters("payments")
        assert headers["choreo.dlq.kind"] == "killer"
        assert headers["choreo.dlq.parked"] == "1"
        assert record.key == b"k3"
        parked = (13, 18, 23, 28)
        assert sorted(world.rows("payments")) == sorted((f"k{n % 5}", n) for n in range(30) if n not in parked)
        deaths = world.rows("payments", "SELECT sum(deaths) FROM choreo_progress WHERE topic = 'orders'")
        assert deaths == [(0,)], "given back in good order, with nothing suspected"

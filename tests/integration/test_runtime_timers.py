"""Timers: what keeps some of them waiting hides no others, and two instances of a service agree about them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from choreo import Context, Event, Retry, Service, connect
from choreo.errors import ConfigurationError, OvertakenError
from choreo.log.port import TopicPartition
from choreo.runtime import timers as timers_module
from choreo.runtime.clock import rfc3339
from choreo.runtime.instance import Instance
from choreo.runtime.recovery import Recovery
from choreo.runtime.sagas.memory import Memory
from choreo.testing import running
from choreo.wire.ids import new_event_id
from tests.integration.saga_world import TABLES, Charged, Ordered, OutOfStock, Rejected, Reserved, Sent
from tests.support import eventually


@pytest.fixture
def recoveries(monkeypatch):
    """What instances have recovered from."""
    errors: list[BaseException] = []
    fail = Recovery.fail

    def failed(self, error):
        errors.append(error)
        fail(self, error)

    monkeypatch.setattr(Recovery, "fail", failed)
    return errors


# --- none hides another ---------------------------------------------------------------------------------------------


async def test_more_timers_than_are_looked_at_once_that_cannot_move_hide_no_others(monkeypatch):
    monkeypatch.setattr(timers_module, "_AT_ONCE", 20)
    service, called, many = Service("orders"), [], 50

    @service.deadline(Ordered, within="1m")
    async def stuck(order: Ordered) -> None:
        raise ConnectionError

    @service.deadline(Reserved, within="2m")
    async def free(reserved: Reserved) -> None:
        called.append(reserved.id)

    async with running(service, dead_letters="keep") as world:
        await world.bus.publish_many([Ordered(id=f"o{number}") for number in range(many)])
        await world.publish(Reserved(id="r1"))
        await world.advance("10m")
        assert called == ["r1"]


async def test_timers_of_a_handler_that_is_not_there_stay_and_hide_no_others(monkeypatch):
    monkeypatch.setattr(timers_module, "_AT_ONCE", 5)
    service, called, gone, many = Service("orders"), [], [], 12

    @service.deadline(Ordered, within="1m")
    async def old(order: Ordered) -> None:
        gone.append(order.id)

    @service.deadline(Reserved, within="2m")
    async def kept(reserved: Reserved) -> None:
        called.append(reserved.id)

    count = "SELECT count(*) FROM choreo_timers WHERE handler = $1"
    async with running(service) as world:
        await world.bus.publish_many([Ordered(id=f"o{number}") for number in range(many)])
        await world.publish(Reserved(id="r1"))
        await world.settle()
        handler = service.handlers.pop("old")  # a version of the service that has it no more
        await world.crash(service)
        await world.advance("10m")
        assert (called, gone) == (["r1"], [])
        assert await world.fetch(service, count, ["old"]) == [(many,)]
        service.handlers["old"] = handler  # and one that has it again
        await world.crash(service)
        await world.advance("1m")
        assert len(gone) == many
        assert await world.fetch(service, count, ["old"]) == [(0,)]


# --- two instances --------------------------------------------------------------------------------------------------


class Beside:
    """Two instances of one service, and how to tell one of them something."""

    def __init__(self, world, bus, instances: list[Instance]) -> None:
        self.world, self._bus, self._instances = world, bus, instances
        self._places = [{at.topic: at for at in instance._owned} for instance in instances]  # none while it recovers

    async def tell(self, event: Event, to: int, at_ms: int | None = None) -> None:
        """Put an event where this instance reads it; it is handled on return. All are of one saga."""
        instance = self._instances[to]
        await self._bus._prepare({type(event)})
        record = self._bus._record(event, None, "saga", None, new_event_id())
        at = self._places[to][record.topic]
        if at_ms is not None:
            headers = [(name, rfc3339(at_ms).encode() if name == "ce_time" else text) for name, text in record.headers]
            record = record._replace(headers=headers)
        await self._bus._producer.append([record._replace(partition=at.partition)])
        (end,) = (await self.world.log.end_offsets([at])).values()

        async def is_handled() -> bool:
            return (await instance._store.watermarks([at])).get(at) == end

        await eventually(is_handled, lambda: f"{at} is read")


@asynccontextmanager
async def two_of(service: Service, world) -> AsyncIterator[Beside]:
    name, known = service.name, service.topics
    async with world.running(service) as one, world.running(service) as two:
        instances = [one[name], two[name]]

        def own(instance: Instance) -> set[TopicPartition]:
            return {at for at in instance._owned if at.topic in known}

        await eventually(
            lambda: all({at.topic for at in own(each)} == set(known) for each in instances), "both own some of each"
        )
        async with connect(world.settings(), source="test", log=world.log) as bus:
            yield Beside(world, bus, instances)


@pytest.mark.parametrize("turns", [(0, 1, 0), (0, 1, 1, 0), (0, 0, 1, 0, 1)], ids=str)
async def test_each_deadline_is_called_once_when_two_instances_set_them_in_turn(memory_world, recoveries, turns):
    service, calls = Service("orders"), []

    @service.deadline(Ordered, within="1s", grace=0)
    async def expire(order: Ordered) -> None:
        calls.append(order.n)

    async with two_of(service, memory_world) as beside:
        for number, instance in enumerate(turns):
            await beside.tell(Ordered(id="o", n=number), instance)
        numbers = list(range(len(turns)))
        await eventually(lambda: len(calls) >= len(numbers), lambda: calls)
        await eventually(lambda: memory_world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)])
    assert sorted(calls) == numbers
    assert recoveries == [], "none has believed what it remembered"


@pytest.mark.parametrize("stops", [(Sent,), (Sent, Rejected)], ids=["one", "two"])
async def test_a_call_under_way_counts_not_when_others_have_stopped_it_meanwhile(memory_world, recoveries, stops):
    service, calls, go_on = Service("orders", tables=TABLES), [], asyncio.Event()

    @service.deadline(Ordered, within="200ms", unless=(Sent, Rejected), grace=0)
    async def expire(order: Ordered, ctx: Context) -> None:
        calls.append(order.id)
        await go_on.wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))

    async with two_of(service, memory_world) as beside:
        now_ms = time.time_ns() // 1_000_000
        await beside.tell(Ordered(id="o"), 0, now_ms)
        await eventually(lambda: calls == ["o"])
        for stop in stops:
            await beside.tell(stop(id="o"), 1, now_ms + 100)  # in time, and read only now
        assert memory_world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)]
        go_on.set()
        await eventually(lambda: recoveries)
        await beside.tell(Ordered(id="too"), 0, now_ms + 50)  # it goes on, and this one is stopped as well
    assert calls == ["o"]
    assert memory_world.rows("orders") == []
    assert {type(error) for error in recoveries} == {OvertakenError}


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_known_of_a_saga_is_let_go_once_its_events_are_done(fails):
    service = Service("payments", tables=TABLES)

    @service.on(Ordered)
    async def charge(order: Ordered) -> Charged:
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,), retry=Retry(attempts=1))
    async def refund(charged: Charged, failure: OutOfStock) -> None: ...

    def memories() -> int:
        gc.collect()
        return sum(isinstance(each, Memory) for each in gc.get_objects())

    others = memories()  # of earlier tests, whose failed calls pytest may still hold

    def remembered() -> int:
        return memories() - others

    async with running(service, dead_letters="keep") as world:
        saga = await world.publish(Ordered(id="o1"))
        await world.settle()
        assert remembered() == 0
        if fails:
            world.fail("refund", ValueError)
        await world.publish(OutOfStock(id="o1"), correlation_id=saga.correlation_id)
        await world.settle()
        assert remembered() == 0


@pytest.mark.parametrize("late", [{"within": "90d"}, {"every": "30d", "times": 3}])
async def test_a_deadline_that_outlives_what_is_remembered_is_refused_at_the_start(late):
    service = Service("orders")

    @service.deadline(Ordered, **late)
    async def expire(order: Ordered) -> None: ...

    with pytest.raises(ConfigurationError, match=r"orders\.expire may come later than CHOREO_SAGA_KEEP=90d"):
        async with running(service):
            pass

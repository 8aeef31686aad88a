"""What instances remember of a saga while others go on with it."""

from __future__ import annotations

from itertools import count

from choreo import Context, Event, Retry, Service
from choreo.events import Metadata
from choreo.log.partitioning import partition_for
from choreo.runtime.instance import Instance
from choreo.wire import Codec, open_registry
from tests.integration.runtime_world import World, owned
from tests.integration.saga_world import TABLES, Charged, Ordered, OutOfStock
from tests.support import eventually

PARTITIONS = 4


async def give(world: World, instance: Instance, event: Event) -> None:
    """Put an event of the saga into a partition of this instance."""
    codec = Codec(open_registry(str(world.folder / "schemas")))
    await codec.prepare(writes={type(event)}, reads=set())
    type_name, (topic, *_), *_ = event.contract
    about = Metadata(f"{event!r}", type_name, "test", "2026-11-28T10:00:00Z", "s1")
    record = codec.encode(event, about, timestamp=1)
    partition = next(at.partition for at in owned(instance) if at.topic == topic)
    await world.log.producer().append([record._replace(partition=partition)])


async def test_who_remembers_an_older_state_does_not_say_that_there_is_nothing_to_undo(memory_world):
    """One instance still holds what the saga was before it failed elsewhere when its compensation comes back to it."""
    service, calls = Service("payments", tables=TABLES), []

    @service.on(Ordered, retry=Retry(delay="1h", max_delay="1h", in_place="2h"))
    async def charge(order: Ordered, ctx: Context) -> Charged:
        if order.n:
            raise ConnectionError("this one waits in its lane")
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,), retry=Retry(delay="10ms", in_place=0))
    async def refund(charged: Charged, failure: OutOfStock, ctx: Context) -> None:
        calls.append(charged.id)
        if len(calls) == 1:
            raise ConnectionError("this one goes by way of the retry topic")
        await ctx.db.execute("INSERT INTO effects VALUES (?, -1)", (charged.id,))

    async with memory_world.running(service) as one, memory_world.running(service) as other:
        here, there = one["payments"], other["payments"]
        await eventually(lambda: len(owned(here)) == len(owned(there)) == PARTITIONS)
        returns = {at.partition for at in there._owned if at.topic == "retry.payments"}
        key = next(key for key in map(str, count()) if partition_for(key.encode(), PARTITIONS) in returns)
        await give(memory_world, there, Ordered(id=key))
        await memory_world.read_to_the_end(service)
        await give(memory_world, there, Ordered(id=key, n=1))
        await eventually(lambda: there.stats.retries == 1)
        await give(memory_world, here, OutOfStock(id=key))
        await eventually(lambda: len(calls) == 2 or here.stats.dead_letters + there.stats.dead_letters)
        await eventually(lambda: memory_world.rows("payments"))
    assert memory_world.rows("payments") == [(key, -1)]
    assert await memory_world.letters("payments") == []

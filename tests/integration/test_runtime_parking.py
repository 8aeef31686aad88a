"""Keys whose first record is away: in the retry topic or among the dead letters."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from choreo import Context, Retry, Service
from choreo.log.port import NewRecord, Record
from choreo.runtime.parking import retry_record
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, Shipped, World
from tests.support import eventually

FAR = Retry(attempts=4, delay="20ms", max_delay="20ms", in_place=0)
"""Every wait is spent in the retry topic."""


class Flaky:
    """A service whose handler fails at some orders for as long as it is told to."""

    def __init__(self, retry: Retry, *, bad: set[int], ordered: bool = True) -> None:
        self.bad = bad
        self.calls: list[tuple[str, int]] = []
        self.service = Service("payments", tables=TABLES)

        @self.service.on(Placed, retry=retry, ordered=ordered)
        async def pay(order: Placed, ctx: Context) -> Paid:
            self.calls.append((order.id, order.n))
            await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
            if order.n in self.bad:
                raise TimeoutError("gateway")
            return Paid(id=order.id, n=order.n)


async def come_back(world: World, *letters: Record, discard: bool = False, value: bytes | None = None) -> None:
    """Redrive or discard dead letters."""
    records: list[NewRecord] = []
    for letter in letters:
        headers = {name: text.decode() for name, text in letter.headers}
        place = [headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset")]
        kept = [header for header in letter.headers if not header[0].startswith(("__dlq.", "choreo.dlq."))]
        original = letter._replace(
            topic=place[0], partition=int(place[1]), offset=int(place[2]), headers=kept, value=value or letter.value
        )
        more = [
            ("choreo.redrive.count", str(int(headers["choreo.dlq.redrive-count"]) + 1)),
            ("choreo.redrive.by", "me"),
        ]
        more += [("choreo.redrive.discard", "1")] if discard else []
        records.append(
            retry_record(
                "payments", original, handler=headers["choreo.dlq.handler"], attempt=0, due_ms=0, more=more,
                first_failed_ms=int(headers["choreo.dlq.first-failed"]),
            )
        )  # fmt: skip
    producer = world.log.producer()
    await producer.append(records)
    await producer.close()


def parked(world: World) -> list[tuple[str, int]]:
    """Handler, and how many records wait, of each parked key."""
    return world.rows(
        "payments",
        "SELECT handler, (SELECT count(*) FROM choreo_behind b WHERE b.lane = p.lane) FROM choreo_parked p ORDER BY 1",
    )


def by_key(rows: list[tuple[str, int]]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for key, n in rows:
        found[key].append(n)
    return dict(found)


async def test_a_key_waits_for_its_record_in_the_retry_topic_and_goes_on_in_order(world):
    flaky = Flaky(Retry(attempts=99, delay="20ms", max_delay="20ms", in_place=0), bad={2})
    async with world.running(flaky.service) as instances:
        await world.publish(*(Placed(id=key, n=n) for n in range(6) for key in "ab"[: 2 if n != 2 else 1]))
        await eventually(lambda: flaky.calls.count(("a", 2)) >= 2)
        flaky.bad.clear()
        await eventually(lambda: instances["payments"].stats.handled == 11, lambda: instances["payments"].stats)
        await eventually(lambda: not parked(world))
        await world.publish(Placed(id="a", n=6))
        await eventually(lambda: instances["payments"].stats.handled == 12)
        await world.read_to_the_end(flaky.service)
    assert by_key(world.rows("payments")) == {"a": [0, 1, 2, 3, 4, 5, 6], "b": [0, 1, 3, 4, 5]}
    paid = [(data["id"], data["n"]) for _, data in await world.events("payments")]
    assert by_key(paid) == by_key(world.rows("payments")), "emitted in that order too"
    assert await world.records("dlq.payments") == []
    first = (await world.records("retry.payments"))[0]
    original = next(record for record in await world.records("orders") if record.key == b"a" and record.offset >= 0)
    assert (first.key, first.headers[: len(original.headers)][0]) == (b"a", original.headers[0])


async def test_attempts_in_the_retry_topic_are_counted_and_exhausted(memory_world):
    flaky = Flaky(FAR, bad={1})
    async with memory_world.running(flaky.service):
        await memory_world.publish(Placed(id="a", n=1), Placed(id="a", n=2), Placed(id="b", n=3))
        await eventually(lambda: _letters(memory_world))
        await eventually(lambda: parked(memory_world) == [("pay", 1)])
    assert flaky.calls.count(("a", 1)) == 4
    ((headers, record),) = await memory_world.letters("payments")
    original = (await memory_world.records("orders"))[0]
    assert (record.key, record.value, record.timestamp) == (b"a", original.value, original.timestamp)
    assert headers["choreo.dlq.kind"] == "exhausted"
    assert headers["__dlq.errors.topic"] == "orders"
    assert headers["__dlq.errors.delivery.count"] == "4"
    assert headers["choreo.dlq.parked"] == "1"
    assert not [name for name in headers if name.startswith("choreo.retry.")]
    assert memory_world.rows("payments") == [("b", 3)]


async def _letters(world: World) -> list[Record]:
    return await world.records("dlq.payments")


async def test_a_redriven_record_releases_its_key_and_what_waited_comes_in_order(world):
    flaky = Flaky(AT_ONCE, bad={1, 3})
    async with world.running(flaky.service) as instances:
        await world.publish(*(Placed(id="a", n=n) for n in range(5)), Placed(id="b", n=9))
        await eventually(lambda: parked(world) == [("pay", 3)])
        flaky.bad.remove(1)
        (first,) = await eventually(lambda: _letters(world))
        await come_back(world, first)
        await eventually(lambda: parked(world) == [("pay", 1)], lambda: parked(world))
        assert by_key(world.rows("payments")) == {"a": [0, 1, 2], "b": [9]}, "the next bad one is the head now"
        await come_back(world, first)
        await eventually(lambda: instances["payments"].stats.duplicates)
        await world.publish(Placed(id="a", n=5))
        await eventually(lambda: parked(world) == [("pay", 2)])
        flaky.bad.clear()
        (second,) = [letter for letter in await _letters(world) if letter.headers != first.headers]
        await come_back(world, second)
        await eventually(lambda: not parked(world))
        await eventually(lambda: len(world.rows("payments")) == 7)
    assert by_key(world.rows("payments")) == {"a": [0, 1, 2, 3, 4, 5], "b": [9]}


async def test_a_redriven_record_that_fails_again_comes_back_with_its_count(memory_world):
    flaky = Flaky(Retry(attempts=3, delay="20ms", max_delay="20ms"), bad={1})
    async with memory_world.running(flaky.service):
        await memory_world.publish(Placed(id="a", n=1), Placed(id="a", n=2))
        (first,) = await eventually(lambda: _letters(memory_world))
        await come_back(memory_world, first)
        await eventually(lambda: _two_letters(memory_world))
        (again,) = [letter for letter in await _letters(memory_world) if letter.offset > first.offset]
        flaky.bad.clear()
        await come_back(memory_world, again)
        await eventually(lambda: not parked(memory_world))
    counts = [headers["choreo.dlq.redrive-count"] for headers, _ in await memory_world.letters("payments")]
    assert counts == ["0", "1"]
    ids = {headers["choreo.dlq.id"] for headers, _ in await memory_world.letters("payments")}
    assert len(ids) == 2
    places = {
        tuple(headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset"))
        for headers, _ in await memory_world.letters("payments")
    }
    assert len(places) == 1, "that of the original"
    assert memory_world.rows("payments") == [("a", 1), ("a", 2)]
    assert not [name for name, _ in again.headers if name.startswith("choreo.redrive.")]


async def _two_letters(world: World) -> bool:
    return len(await _letters(world)) == 2


async def test_a_discarded_record_is_not_run_nor_are_its_copies_and_its_key_goes_on(memory_world):
    flaky = Flaky(AT_ONCE, bad={1})
    async with memory_world.running(flaky.service) as instances:
        await memory_world.publish(Placed(id="a", n=1), Placed(id="a", n=2))
        (letter,) = await eventually(lambda: _letters(memory_world))
        copy = (await memory_world.records("orders"))[0]
        producer = memory_world.log.producer()
        await producer.append([NewRecord("orders", copy.key, copy.value, copy.headers)])
        await producer.close()
        await eventually(lambda: parked(memory_world) == [("pay", 2)])
        calls = flaky.calls.count(("a", 1))
        await come_back(memory_world, letter, discard=True)
        await eventually(lambda: not parked(memory_world))
        assert flaky.calls.count(("a", 1)) == calls
        await memory_world.publish(Placed(id="a", n=3))
        await eventually(lambda: instances["payments"].stats.handled == 2)
    assert memory_world.rows("payments") == [("a", 2), ("a", 3)]


async def test_a_discarded_record_whose_handler_is_gone_releases_its_key(memory_world):
    flaky, other = Flaky(AT_ONCE, bad={1}), Service("payments", tables=TABLES)

    @other.on(Placed)
    async def notes(order: Placed, ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES ('noted', ?)", (order.n,))

    async with memory_world.running(flaky.service):
        await memory_world.publish(Placed(id="a", n=1), Placed(id="a", n=2))
        (letter,) = await eventually(lambda: _letters(memory_world))
        await eventually(lambda: parked(memory_world) == [("pay", 1)])
    async with memory_world.running(other):
        await come_back(memory_world, letter, discard=True)
        await eventually(lambda: not parked(memory_world))
        await memory_world.publish(Placed(id="a", n=3))
        await eventually(lambda: memory_world.rows("payments") == [("noted", 3)])
    assert len(await _letters(memory_world)) == 1


async def test_copies_that_wait_behind_a_key_are_handled_once(memory_world):
    flaky = Flaky(AT_ONCE, bad={1})
    async with memory_world.running(flaky.service) as instances:
        await memory_world.publish(Placed(id="a", n=1), Placed(id="a", n=2), Placed(id="a", n=3))
        (letter,) = await eventually(lambda: _letters(memory_world))
        producer = memory_world.log.producer()
        copies = await memory_world.records("orders")
        await producer.append([NewRecord("orders", copy.key, copy.value, copy.headers) for copy in copies])
        await producer.close()
        await eventually(lambda: parked(memory_world) == [("pay", 5)])
        flaky.bad.clear()
        calls = len(flaky.calls)
        await come_back(memory_world, letter)
        await eventually(lambda: not parked(memory_world))
        assert flaky.calls[calls:] == [("a", 1), ("a", 2), ("a", 3)]
        assert instances["payments"].stats.handled == 3
    assert memory_world.rows("payments") == [("a", 1), ("a", 2), ("a", 3)]


@pytest.mark.parametrize("retry", [FAR, Retry(attempts=3, delay="20ms", max_delay="20ms")], ids=["topic", "in place"])
async def test_a_handler_that_needs_no_order_waits_for_nobody(memory_world, retry):
    flaky = Flaky(retry, bad={1}, ordered=False)
    async with memory_world.running(flaky.service):
        await memory_world.publish(*(Placed(id="a", n=n) for n in range(5)))
        await eventually(lambda: _letters(memory_world))
        await memory_world.read_to_the_end(flaky.service)
    assert sorted(memory_world.rows("payments")) == [("a", n) for n in (0, 2, 3, 4)]
    assert parked(memory_world) == []
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.parked"] == "0"


async def test_another_handler_of_the_same_key_goes_on(memory_world):
    service = Service("payments", tables=TABLES)
    bad = True

    @service.on(Placed, retry=FAR)
    async def fails(order: Placed, ctx: Context) -> Shipped:
        await ctx.db.execute("INSERT INTO effects VALUES ('fails', ?)", (order.n,))
        if bad:
            raise TimeoutError("gateway")
        return Shipped(id=order.id, n=order.n)

    @service.on(Placed, retry=FAR)
    async def works(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES ('works', ?)", (order.n,))
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id="a", n=n) for n in range(4)))
        await eventually(lambda: by_key(memory_world.rows("payments")) == {"works": [0, 1, 2, 3]})
        bad = False
        await eventually(lambda: not parked(memory_world) and len(memory_world.rows("payments")) == 8)
    assert by_key(memory_world.rows("payments")) == {"works": [0, 1, 2, 3], "fails": [0, 1, 2, 3]}


async def test_records_without_a_key_wait_for_nobody(memory_world):
    flaky = Flaky(FAR, bad={1})
    async with memory_world.running(flaky.service):
        await memory_world.publish(*(Placed(id="a", n=n) for n in (1, 2)))
        records = await memory_world.records("orders")
        producer = memory_world.log.producer()
        headers = [
            [h if h[0] != "ce_id" else ("ce_id", f"copy{r.offset}".encode()) for h in r.headers] for r in records
        ]
        await producer.append(
            [NewRecord("orders", None, r.value, h, None, 0) for r, h in zip(records, headers, strict=True)]
        )
        await producer.close()
        await eventually(lambda: memory_world.rows("payments") == [("a", 2)])
        flaky.bad.clear()
        await eventually(lambda: len(memory_world.rows("payments")) == 4)
    assert sorted(memory_world.rows("payments")) == [("a", 1), ("a", 1), ("a", 2), ("a", 2)]


async def test_a_hundred_waiting_keys_leave_the_workers_to_the_others(memory_world):
    service, stuck = Service("payments", concurrency=2), set()

    @service.on(Placed, retry=Retry(attempts=9, delay="1h", max_delay="1h", within="99h", in_place="1h"))
    async def work(order: Placed) -> Paid:
        if order.n == 1:
            stuck.add(order.id)
            raise TimeoutError("gateway")
        return Paid(id=order.id)

    async with memory_world.running(service, max_in_flight=10) as instances:
        instance = instances["payments"]
        await memory_world.publish(*(Placed(id=f"k{n}", n=n % 4) for n in range(400)))
        await eventually(lambda: len(stuck) == 100 and instance.stats.handled == 300, lambda: instance.stats)
        assert instance._lanes.deferred_jobs == 100
        assert instance._pressure.load <= 10


async def test_two_instances_share_a_parked_key(memory_world):
    """The key's records come to one, its retries to the other; whoever releases, the order is kept."""
    flaky = Flaky(FAR, bad={3})
    async with (
        memory_world.running(flaky.service) as one,
        memory_world.running(flaky.service) as other,
    ):
        await eventually(lambda: one["payments"]._owned and other["payments"]._owned)
        keys = [f"k{number}" for number in range(12)]
        for n in range(12):
            await memory_world.publish(*(Placed(id=key, n=n) for key in keys))
            if n == 5:
                await eventually(lambda: len(parked(memory_world)) == len(keys))
                flaky.bad.clear()
        await eventually(lambda: len(memory_world.rows("payments")) == 144, lambda: len(memory_world.rows("payments")))
        await eventually(lambda: not parked(memory_world))
    assert by_key(memory_world.rows("payments")) == {key: list(range(12)) for key in keys}
    assert await memory_world.records("dlq.payments") == []
    emitted = [(data["id"], data["n"]) for _, data in await memory_world.events("payments")]
    first = list(dict.fromkeys(emitted))
    assert by_key(first) == {key: list(range(12)) for key in keys}


async def test_a_retry_record_that_nobody_can_read_is_a_dead_letter(memory_world):
    flaky = Flaky(AT_ONCE, bad=set())
    async with memory_world.running(flaky.service):
        await memory_world.publish(Placed(id="a", n=1))
        (record,) = await memory_world.records("orders")
        unknown = retry_record("payments", record, handler="gone", attempt=1, due_ms=0, first_failed_ms=1)
        producer = memory_world.log.producer()
        await producer.append([NewRecord("retry.payments", b"x", b"x", []), unknown])
        await producer.close()
        await eventually(lambda: _two_letters(memory_world))
    told = {headers["__dlq.errors.message"] for headers, _ in await memory_world.letters("payments")}
    assert any("none that choreo wrote" in text for text in told)
    assert any("no handler 'gone'" in text for text in told)
    assert {headers["choreo.dlq.kind"] for headers, _ in await memory_world.letters("payments")} == {"undecodable"}


async def test_revoked_while_they_wait_records_are_handled_by_the_next_owner(memory_world):
    service, calls, fail = Service("payments"), [], True

    @service.on(Placed, retry=Retry(attempts=9, delay="1h", max_delay="1h", within="99h"))
    async def work(order: Placed) -> None:
        calls.append(order.n)
        if fail:
            raise TimeoutError("gateway")

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="a", n=1))
        await eventually(lambda: calls and instances["payments"]._lanes.deferred_jobs == 1)
    fail = False
    async with memory_world.running(service) as instances:
        (record,) = await memory_world.records("retry.payments")
        assert dict(record.headers)["choreo.retry.attempt"] == b"1"
        assert calls == [1], "it is not due yet"
        await asyncio.sleep(0)

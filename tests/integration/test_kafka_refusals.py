"""The log refuses a new producer's first request and takes what comes behind it: nothing acknowledged is missing.

A broker that knows nothing of a producer in a partition takes any first request; librdkafka then tells of the refused one
as appended too (docs/decisions/0011).
"""

import asyncio
import contextlib
import struct
import uuid

import pytest

from choreo.errors import LogError
from choreo.log import NewRecord, Topic, open_log
from tests.servers.kafka import KafkaServer
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.kafka

SINGLY = {"batch.num.messages": "1"}  # every record is a request of its own

PRODUCE, NOT_LEADER = 0, 6
HELD = 1.0  # seconds that the first request waits for a second one


class FirstRefused(Proxy):
    """Passes everything on to a broker, but the first request to append to a topic with one partition: that is answered "not
    the leader", as soon as there is a second one behind it."""

    topic = b""  # what is not set is not refused

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there, other = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(other):
                await self._both(self._requests(reader, other, writer), self._pass(there, writer))

    async def _requests(
        self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        first: asyncio.Task[None] | None = None
        second = asyncio.Event()
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size = await reader.readexactly(4)
                request = await reader.readexactly(int.from_bytes(size))
                kind, version, number = struct.unpack_from(">hhi", request)
                if kind == PRODUCE and first is not None:
                    second.set()
                    await first
                elif kind == PRODUCE and self.topic and self.topic in request:
                    assert 9 <= version <= 12  # the answer below is written as they have it
                    first = asyncio.create_task(self._answer(back, number, self.topic, second))
                    self.topic = b""
                    continue
                there.write(size + request)
                await there.drain()

    async def _answer(self, back: asyncio.StreamWriter, number: int, topic: bytes, second: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(second.wait(), HELD)
        if not back.is_closing():
            named = bytes([2, len(topic) + 1]) + topic  # one topic; lengths are written with one added
            partition = b"\x02" + struct.pack(">ihqqq", 0, NOT_LEADER, -1, -1, -1) + b"\x01\x00\x00"
            answer = struct.pack(">i", number) + b"\0" + named + partition + b"\0" + struct.pack(">i", 0) + b"\0"
            back.write(len(answer).to_bytes(4) + answer)


@pytest.fixture(scope="module")
def proxy():
    with FirstRefused() as proxy, KafkaServer(proxy=proxy) as kafka:
        proxy.kafka = kafka.bootstrap
        yield proxy


@pytest.fixture
async def topic(proxy):
    """A topic in which others have written already."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    async with open_log(f"kafka://{proxy.kafka}", {}) as log:
        await log.create_topics([Topic(name=name, partitions=1)])
        await log.producer().append([NewRecord(name, b"k", b"old", [])])
    yield name
    assert not proxy.topic  # the first request was refused indeed


async def read(proxy, topic):
    """The values in a topic, but for the old one."""
    async with open_log(f"kafka://{proxy.kafka}", {}) as log:
        await log.producer().append([NewRecord(topic, b"k", b"end", [])])
        reader, values = log.consumer([topic]), []
        async with asyncio.timeout(30):
            while b"end" not in values:
                values += [record.value for record in await reader.poll()]
    return values[1:-1]


async def told(appends):
    """Which of the appends, by value, are acknowledged; all must be told in time."""
    async with asyncio.timeout(40):
        results = await asyncio.gather(*appends.values(), return_exceptions=True)
    assert all(result is None or isinstance(result, LogError) for result in results), results
    return [value for value, result in zip(appends, results, strict=True) if result is None]


def overlapping(producer, topic):
    return {
        value: asyncio.ensure_future(producer.append([NewRecord(topic, b"k", value, [])])) for value in (b"A", b"B")
    }


async def test_a_gapless_producer_keeps_the_order(proxy, topic):
    async with open_log(f"kafka://{proxy.address}", SINGLY) as log:
        producer = log.producer(gapless=True)
        proxy.topic = topic.encode()
        assert await told(overlapping(producer, topic)) == [b"A", b"B"]
        assert await read(proxy, topic) == [b"A", b"B"]


async def test_one_append_of_many_keeps_the_order(proxy, topic):
    async with open_log(f"kafka://{proxy.address}", SINGLY) as log:
        producer = log.producer(gapless=True)
        proxy.topic = topic.encode()
        await producer.append([NewRecord(topic, b"k", b"%d" % n, []) for n in range(10)])
        assert await read(proxy, topic) == [b"%d" % n for n in range(10)]


async def test_what_is_acknowledged_is_there(proxy, topic):
    async with open_log(f"kafka://{proxy.address}", SINGLY) as log:
        producer = log.producer()
        proxy.topic = topic.encode()
        acknowledged = await told(overlapping(producer, topic))
        assert set(acknowledged) <= set(await read(proxy, topic))


async def test_a_transaction_is_whole_or_refused(proxy, topic):
    async with open_log(f"kafka://{proxy.address}", SINGLY) as log:
        producer = log.producer(transactional_id=topic)
        proxy.topic = topic.encode()
        both = [NewRecord(topic, b"k", value, []) for value in (b"A", b"B")]
        acknowledged = await told({b"AB": asyncio.ensure_future(producer.append_atomically(both))})
        assert sorted(await read(proxy, topic)) == ([b"A", b"B"] if acknowledged else [])

"""The producer's thread when nobody listens any more."""

import asyncio

import pytest

from choreo.errors import LogError, LogUnavailableError
from choreo.log.kafka.client import Client, Delivery, send
from choreo.log.kafka.producer import GaplessProducer, KafkaProducer
from choreo.log.kafka.telemetry import Outage
from choreo.log.port import NewRecord

DEAD = {"bootstrap.servers": "127.0.0.1:1", "client.id": "x", "delivery.timeout.ms": "100", "linger.ms": "0"}


def test_a_loop_that_is_closed_does_not_keep_the_client_from_ending():
    client = Client(DEAD, Outage("producer"))

    async def leave():
        delivery = Delivery(client, gapless=False)
        delivery.sent = 1
        waiting = asyncio.create_task(delivery.all())
        await asyncio.sleep(0)
        waiting.cancel()
        send(client.producer, NewRecord("t", None, b"v", []), delivery.report)

    asyncio.run(leave())
    client.stop()
    client.ended.result(30)


async def test_a_client_that_hears_nothing_for_long_is_given_up_and_says_so(monkeypatch):
    monkeypatch.setattr("choreo.log.kafka.client.SILENCE", 0.3)
    producer = GaplessProducer(DEAD | {"enable.idempotence": "true"}, "User:ANONYMOUS", lambda topic: None)
    with pytest.raises(LogUnavailableError, match="no answer for 0 s"):
        await asyncio.wait_for(producer.append([NewRecord("t", None, b"v", [])]), 20)
    with pytest.raises(LogUnavailableError, match="broken"):
        await producer.append([NewRecord("t", None, b"v", [])])
    await producer.close()


async def test_after_records_that_timed_out_a_new_client_appends_the_next():
    producer = KafkaProducer(DEAD, "User:ANONYMOUS", lambda topic: None)
    first = producer.live()
    with pytest.raises(LogUnavailableError):
        await producer.append([NewRecord("t", None, b"v", [])])
    assert producer.live() is not first
    await asyncio.wrap_future(first.ended)
    await producer.close()


async def test_closing_ends_an_append_that_has_not_sent_all_and_those_that_wait_for_it(monkeypatch):
    sent = []
    monkeypatch.setattr("choreo.log.kafka.producer.send", lambda *arguments: sent.append(arguments))
    producer = GaplessProducer(DEAD | {"enable.idempotence": "true"}, "User:ANONYMOUS", lambda topic: None)
    appends = [asyncio.ensure_future(producer.append([NewRecord("t", b"k", b"v", [])] * 2)) for _ in range(2)]
    await asyncio.sleep(0.1)  # the first asks for the topic's partitions
    await producer.close()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*appends, return_exceptions=True)
    assert all(isinstance(result, LogError) for result in results), results
    assert not sent, "what is entered into a client that has ended may be sent, and nobody would know"


async def test_a_cancelled_append_breaks_the_gapless_producer():
    producer = GaplessProducer(DEAD | {"enable.idempotence": "true"}, "User:ANONYMOUS", lambda topic: None)
    append = asyncio.ensure_future(producer.append([NewRecord("t", b"k", b"v", [])] * 2))
    await asyncio.sleep(0.1)
    append.cancel()
    await asyncio.wait([append])
    with pytest.raises(LogUnavailableError, match="cancelled"):
        await producer.append([NewRecord("t", b"k", b"v", [])])
    await producer.close()

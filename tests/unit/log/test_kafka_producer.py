"""The producer's thread when nobody listens any more."""

import asyncio

from choreo.log.kafka.producer import Client, send
from choreo.log.port import NewRecord

DEAD = {"bootstrap.servers": "127.0.0.1:1", "client.id": "x", "delivery.timeout.ms": "100", "linger.ms": "0"}


def test_a_loop_that_is_closed_does_not_keep_the_client_from_ending():
    client = Client(DEAD)

    async def leave():
        from choreo.log.kafka.producer import _Delivery

        delivery = _Delivery(client, gapless=False)
        waiting = asyncio.create_task(delivery.of(1))
        await asyncio.sleep(0)
        waiting.cancel()
        send(client.producer, NewRecord("t", None, b"v", []), delivery.report)

    asyncio.run(leave())
    client.stop()
    client.ended.result(30)

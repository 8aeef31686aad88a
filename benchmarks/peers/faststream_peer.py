"""Contestants faststream-…: a FastStream subscriber that publishes.

    python faststream_peer.py confluent|aiokafka default|ack|fast

`default` awaits the broker's confirmation of each payment and leaves offsets to the client's timer; `ack` acknowledges
each order after its handler; `fast` awaits no confirmation.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

from faststream import AckPolicy, FastStream
from job import Bench, Job, headers, settle_garbage_collector

CLIENT, FORM = sys.argv[1:]
flavour: Any = importlib.import_module({"confluent": "faststream.confluent", "aiokafka": "faststream.kafka"}[CLIENT])
bench = Bench.here()
job = Job(bench)
broker = flavour.KafkaBroker(bench.bootstrap, logger=None, allow_auto_create_topics=False)
options = {"ack_policy": AckPolicy.NACK_ON_ERROR} if FORM == "ack" else {}


async def as_it_is(message: Any) -> bytes:
    body: bytes = message.body
    return body


@broker.subscriber(
    bench.orders, group_id=bench.group, auto_offset_reset="earliest", session_timeout_ms=6000, heartbeat_interval_ms=2000,
    decoder=as_it_is, **options,
)  # fmt: skip
async def charge(body: bytes, message: flavour.KafkaMessage) -> None:
    key, value = job.handle(body)
    cause = {name: text.encode() for name, text in message.headers.items()}
    written = {name: text.decode() for name, text in headers(cause)}
    await broker.publish(value, bench.payments, key=key, headers=written, no_confirm=FORM == "fast")


if __name__ == "__main__":
    settle_garbage_collector()
    asyncio.run(FastStream(broker, logger=None).run())

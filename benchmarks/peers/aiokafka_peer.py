"""Contestant aiokafka: batches by hand, each confirmed and then committed."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from job import Bench, Job, headers, settle_garbage_collector

BATCH = 1000


async def main() -> None:
    bench = Bench.here()
    job = Job(bench)
    consumer = AIOKafkaConsumer(
        bench.orders, bootstrap_servers=bench.bootstrap, group_id=bench.group, enable_auto_commit=False,
        auto_offset_reset="earliest", session_timeout_ms=6000, heartbeat_interval_ms=2000,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=bench.bootstrap, enable_idempotence=True, linger_ms=1)
    settle_garbage_collector()
    async with consumer, producer:
        while True:
            sent = []
            for messages in (await consumer.getmany(timeout_ms=100, max_records=BATCH)).values():
                for message in messages:
                    key, value = job.handle(message.value)
                    written = headers(dict(message.headers))
                    sent.append(await producer.send(bench.payments, value, key, headers=written))
            if sent:
                await asyncio.gather(*sent)
                await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main())

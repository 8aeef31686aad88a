"""Contestant `raw`: the loop that a careful engineer writes without a framework. At-least-once, without a store.

confluent-kafka in batches, headers read and written, fastavro, pydantic, flush and commit per batch.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Producer
from job import Bench, Job, headers, settle_garbage_collector

BATCH = 1000


def main() -> None:
    bench = Bench.here()
    job = Job(bench)
    consumer = Consumer(
        {
            "bootstrap.servers": bench.bootstrap, "group.id": bench.group, "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 50, "session.timeout.ms": 6000,
        }
    )  # fmt: skip
    producer = Producer(
        {
            "bootstrap.servers": bench.bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random",
            "linger.ms": 1,
        }
    )  # fmt: skip
    failed: list[Any] = []
    consumer.subscribe([bench.orders])
    settle_garbage_collector()
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        for message in [first, *consumer.consume(BATCH - 1, 0)]:
            if message.error():
                raise SystemExit(message.error())
            cause = dict(message.headers())
            key, value = job.handle(message.value())
            producer.produce(
                bench.payments,
                value,
                key,
                headers=headers(cause),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        producer.flush()
        if failed:
            raise SystemExit(failed[0])
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()

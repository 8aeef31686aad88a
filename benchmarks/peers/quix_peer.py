"""Contestants quix…: a Quix Streams application.

    python quix_peer.py at-least-once|exactly-once

At-least-once with its own commit interval of 5 s, exactly-once with 100 ms, so that others see payments as soon. It
hands the order's headers
on as they are.
"""

from __future__ import annotations

import sys

from job import Bench, Job, settle_garbage_collector
from quixstreams import Application

GUARANTEE = sys.argv[1]


def main() -> None:
    bench = Bench.here()
    job = Job(bench)
    app = Application(
        bench.bootstrap, consumer_group=bench.group, auto_offset_reset="earliest", loglevel="ERROR",
        processing_guarantee=GUARANTEE, commit_interval=0.1 if GUARANTEE == "exactly-once" else 5.0,
        consumer_extra_config={"session.timeout.ms": 6000}, auto_create_topics=False,
    )  # fmt: skip
    orders = app.topic(bench.orders, key_deserializer="bytes", value_deserializer="bytes")
    payments = app.topic(bench.payments, key_serializer="bytes", value_serializer="bytes")
    app.dataframe(orders).apply(lambda value: job.handle(value)[1]).to_topic(payments)
    settle_garbage_collector()
    app.run()


if __name__ == "__main__":
    main()

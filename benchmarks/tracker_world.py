"""A choreography of ten steps for the tracker's benchmark, and its records: declared, and written straight into a log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from choreo import Event, Service
from choreo.choreography import Choreography
from choreo.dlq.letters import Place
from choreo.graph import Graph
from choreo.saga.sighting import Sighting
from choreo.wire.ids import derive_event_id, new_event_id

PARTITIONS, STEPS = 4, 10
TOPICS = ("orders", "payments", "stock", "shipping", "mail")
_WINDOW = 500
"""Sagas that are under way at once."""


def _declared() -> Graph:
    """A chain: the service of each topic takes the event before, and emits the next."""
    services = {name: Service(name) for name in TOPICS}
    classes: list[Any] = []
    for number in range(STEPS):
        ends = {"ends": "completed"} if number == STEPS - 1 else {}
        body = {"__annotations__": {"order_id": str}, "__module__": __name__}
        classes.append(type(Event)(f"Step{number}", (Event,), body, topic=topic_of(number), key="order_id", **ends))
    for number in range(1, STEPS):

        async def step(event: Any) -> Any:
            return event

        step.__name__ = step.__qualname__ = f"step{number}"
        step.__annotations__ = {"event": classes[number - 1], "return": classes[number]}
        services[topic_of(number)].on(classes[number - 1])(step)
    return Choreography.of(services.values()).graph


def topic_of(number: int) -> str:
    return TOPICS[number % len(TOPICS)]


GRAPH: Graph = _declared()


def saga(number: int) -> Iterator[tuple[str, bytes, list[tuple[str, bytes]]]]:
    """The records of a saga: topic, key and headers."""
    root = cause = new_event_id()
    key = b"order-%08d" % number
    for step in range(STEPS):
        topic = topic_of(step)
        event_id = root if step == 0 else derive_event_id(cause, topic, f"step{step}", 0, time_ms=0)
        now = time.time()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        headers = [
            ("ce_specversion", b"1.0"), ("content-type", b"application/avro"), ("ce_type", b"Step%d" % step),
            ("ce_dataschema", b"schemas/%s/Step%d.avsc" % (topic.encode(), step)),
            ("ce_source", b"web" if step == 0 else topic.encode()), ("ce_id", event_id.encode()),
            ("ce_time", when.encode()), ("ce_subject", key), ("ce_correlationid", root.encode()),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]  # fmt: skip
        if step:
            headers.append(("ce_causationid", cause.encode()))
        yield topic, key, headers
        cause = event_id


def fill(bootstrap: str, sagas: int) -> None:
    """Write so many sagas into a broker's log, many side by side, all read to the end by all services."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in GRAPH.topics]).values():
        made.result()
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    value = b"\0\0\0\0\1" + bytes(range(100))
    for first in range(0, sagas, _WINDOW):
        side_by_side = [saga(number) for number in range(first, min(sagas, first + _WINDOW))]
        for topic, key, headers in itertools.chain.from_iterable(zip(*side_by_side, strict=True)):
            while True:
                try:
                    producer.produce(topic, value, key, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    for group in GRAPH.services:
        read_to_end(bootstrap, group)


def read_to_end(bootstrap: str, group: str) -> None:
    """As if a service had read everything."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    places = [TopicPartition(name, number) for name in TOPICS for number in range(PARTITIONS)]
    for place in places:
        place.offset = client.get_watermark_offsets(place, 10)[1]
    client.commit(offsets=places, asynchronous=False)
    client.close()


def sightings(number: int, at_ms: int, offsets: dict[tuple[str, int], int]) -> list[Sighting]:
    """A saga as the tracker sees it, without a log."""
    seen = []
    root = cause = new_event_id()
    partition = number % PARTITIONS
    for step in range(STEPS):
        topic = topic_of(step)
        event_id = root if step == 0 else derive_event_id(cause, topic, f"step{step}", 0, time_ms=0)
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + 1
        seen.append(
            Sighting(
                Place(topic, partition, offset), "event", root, event_id, f"Step{step}", "web" if step == 0 else topic,
                cause if step else None, None, None, at_ms + step * 20, at_ms + step * 20, f"order-{number:08}",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
        )  # fmt: skip
        cause = event_id
    return seen

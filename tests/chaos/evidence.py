"""What is left after a round: all records of all topics, all rows of all stores."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from choreo.choreography import Choreography, dead_letter_topic, retry_topic
from choreo.log import Log, Record, TopicPartition
from choreo.store import records
from choreo.wire import Codec, open_registry
from tests.chaos.world import services

_IDLE = 2.0
_GRACE = 60.0


class Seen(NamedTuple):
    """One event as it lies in the log; its place is its position in the list it comes in."""

    event_id: str
    cause: str | None
    type: str
    key: str
    seq: int
    fate: str
    n: int
    place: str


class Letter(NamedTuple):
    """One dead letter."""

    id: str
    service: str
    handler: str
    kind: str
    reason: str
    event_id: str
    place: str
    parked: bool
    redrives: int


class Effect(NamedTuple):
    """One row that a handler wrote."""

    event_id: str
    handler: str
    type: str
    key: str
    seq: int


class Rest(NamedTuple):
    """What a store holds at rest.

    Attributes:
        effects: in the order in which they were written.
        outbox: rows not known to be published.
        parked: handler, key and head of each parked key.
        behind: handler and event id of each record that waits.
    """

    effects: list[Effect]
    outbox: int
    parked: list[tuple[str, str, str]]
    behind: list[tuple[str, str]]


class Evidence(NamedTuple):
    """Everything.

    Attributes:
        events: by topic, each topic's partitions one after the other, so that a key's order is the list's.
        letters: dead letters as they lie there, copies too.
        resolved: ids of dead letters that were redriven or discarded; the latter in `discarded` too.
        retried: how many records the retry topics have.
    """

    events: dict[str, list[Seen]]
    letters: list[Letter]
    resolved: set[str]
    discarded: set[str]
    retried: int
    rests: dict[str, Rest]


async def read_log(log: Log, topics: Iterable[str]) -> dict[str, list[Record]]:
    """All records of these topics, in the order of their partitions."""
    existing = await log.topics()
    names = [name for name in topics if name in existing]
    ends = await log.end_offsets([TopicPartition(t, p) for t in names for p in range(existing[t].partitions)])
    found: dict[str, list[Record]] = {name: [] for name in names}
    left = {at: end for at, end in ends.items() if end > 0}
    consumer = log.consumer(names)
    try:
        deadline = asyncio.get_running_loop().time() + _GRACE
        while left and asyncio.get_running_loop().time() < deadline:
            records = await consumer.poll(5_000, timeout=_IDLE)
            if not records and any(found.values()):
                break  # what is left are markers of transactions
            for record in records:
                at = TopicPartition(record.topic, record.partition)
                found[record.topic].append(record)
                if record.offset + 1 >= left.get(at, 0):
                    left.pop(at, None)
    finally:
        await consumer.close()
    return {name: sorted(records, key=lambda r: (r.partition, r.offset)) for name, records in found.items()}


async def gather(log: Log, registry: str, stores: dict[str, str]) -> Evidence:
    """Read everything; `stores` are the addresses of the services that have one."""
    choreography = Choreography.of(services)
    records = await read_log(log, {*choreography.topics, *(retry_topic(s.name) for s in services)})
    classes = {cls.contract.type_name: cls for cls in choreography.event_classes}
    opened = open_registry(registry)
    codec = Codec(opened)
    await codec.prepare(writes=(), reads=classes.values())
    letters, resolved, discarded = _letters(records)
    events: dict[str, list[Seen]] = {}
    for topic in {topic for cls in classes.values() for topic in cls.contract.topics} & records.keys():
        for record in records[topic]:
            if (seen := await _seen(codec, classes, record)) is not None:
                events.setdefault(topic, []).append(seen)
    await opened.aclose()
    rests = {name: await asyncio.to_thread(_rest, name, url) for name, url in stores.items()}
    retried = sum(len(records.get(retry_topic(s.name), ())) for s in services)
    return Evidence(events, letters, resolved, discarded, retried, rests)


async def _seen(codec: Codec, classes: dict[str, Any], record: Record) -> Seen | None:
    """The event in a record; None for garbage, which only dead letters tell of."""
    headers = {name: (value or b"").decode() for name, value in record.headers}
    if "ce_id" not in headers:
        return None
    event = await _decoded(codec, record, classes[headers["ce_type"]])
    cause = headers.get("ce_causationid")
    n = getattr(event, "n", 0)
    made = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    place = f"{record.topic}/{record.partition}@{record.offset}, made at {made:%H:%M:%S.%f}"
    return Seen(headers["ce_id"], cause, headers["ce_type"], event.key, event.seq, event.fate, n, place)


async def _decoded(codec: Codec, record: Record, cls: Any) -> Any:
    from choreo.errors import SchemaNotCachedError

    while True:
        try:
            return codec.decode(record, cls)
        except SchemaNotCachedError as missing:
            await codec.load(missing.schema_id)


def _letters(records: dict[str, list[Record]]) -> tuple[list[Letter], set[str], set[str]]:
    letters: list[Letter] = []
    resolved: set[str] = set()
    discarded: set[str] = set()
    for service in services:
        for record in records.get(dead_letter_topic(service.name), ()):
            texts = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
            if ended := texts.get("choreo.dlq.resolves"):
                resolved.add(ended)
                discarded.update({ended} if texts["choreo.dlq.resolution"] == "discarded" else set())
                continue
            place = "/".join(texts.get(f"__dlq.errors.{part}", "?") for part in ("topic", "partition", "offset"))
            letters.append(
                Letter(
                    texts.get("choreo.dlq.id", ""),
                    service.name,
                    texts.get("choreo.dlq.handler", ""),
                    texts.get("choreo.dlq.kind", ""),
                    texts.get("choreo.dlq.exception", ""),
                    texts.get("ce_id", ""),
                    place,
                    texts.get("choreo.dlq.parked") == "1",
                    int(texts.get("choreo.dlq.redrive-count", 0)),
                )
            )
    return letters, resolved, discarded


_EFFECTS = "SELECT event_id, handler, type, key, seq FROM effects ORDER BY id"
_BEHIND = (
    "SELECT parked.handler, behind.record FROM choreo_behind AS behind JOIN choreo_parked AS parked"
    " ON parked.lane = behind.lane ORDER BY behind.id"
)


def _rest(service: str, url: str) -> Rest:
    """Read one store."""
    connection: Any
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///")).absolute()
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)
    else:
        connection = psycopg.connect(url)
        connection.execute(f"SET search_path TO {service}")
    with closing(connection):
        effects = [Effect(*row) for row in connection.execute(_EFFECTS)]
        outbox = connection.execute("SELECT count(*) FROM choreo_outbox").fetchone()[0]
        parked = [
            (handler, bytes(key).decode(), head.decode() if isinstance(head, bytes) else head)
            for handler, key, head in connection.execute("SELECT handler, key, head FROM choreo_parked")
        ]
        waiting = [(handler, _event_id(bytes(packed))) for handler, packed in connection.execute(_BEHIND)]
    return Rest(effects, outbox, parked, waiting)


def _event_id(packed: bytes) -> str:
    return dict(records.waiter(packed).headers)["ce_id"].decode()

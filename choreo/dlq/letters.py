"""A dead letter as its record tells it: choreo's own, and those that other systems write. Pure.

Header names: KIP-1191 (share groups, which choreo's own extend), Kafka Connect's errors.deadletterqueue, KIP-1034
(Streams), and Spring Kafka's DeadLetterPublishingRecoverer, which writes numbers as big-endian binary.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from choreo.errors import DecodeError
from choreo.log.port import Headers, Record, TopicPartition
from choreo.wire import envelope

Family = Literal["choreo", "spring", "connect", "streams", "kip-1191"]
Resolved = Literal["redriven", "discarded"]

_PREFIXES: dict[Family, tuple[str, ...]] = {
    "choreo": ("choreo.dlq.", "__dlq.errors."),
    "spring": ("kafka_dlt-", "retry_topic-"),
    "connect": ("__connect.errors.",),
    "streams": ("__streams.errors.",),
    "kip-1191": ("__dlq.errors.",),
}
"""The headers of each family. A record is of the first one whose first prefix it has."""

_PLACE = ("topic", "partition", "offset")
_NAMES = {
    "topic": ("topic", "original-topic"),
    "partition": ("partition", "original-partition"),
    "offset": ("offset", "original-offset"),
    "written": ("original-timestamp",),
    "group": ("group", "original-consumer-group", "connector.name"),
    "attempts": ("delivery.count", "attempts"),
    "stage": ("stage",),
    "exception": ("exception", "exception-cause-fqcn", "exception-fqcn", "exception.class.name"),
    "message": ("message", "exception-message", "exception.message"),
    "trace": ("stacktrace", "exception-stacktrace", "exception.stacktrace"),
}
"""How the headers that say a thing end, in all families; of several that a record has, the first counts."""
_HEADERS = {
    family: {field: [prefix + end for end in ends for prefix in prefixes] for field, ends in _NAMES.items()}
    for family, prefixes in _PREFIXES.items()
}

_OWN = ("choreo.dlq.", "choreo.retry.", "choreo.redrive.")
_JAVA_FRAME = re.compile(r"^\s*at (?:[\w.@]+/)*([^\s(]+)\(", re.MULTILINE)
_GENERATED = re.compile(r"\$\$Lambda[^.]*|\$\d+")
_FRAMES = 5


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"

    @property
    def of(self) -> TopicPartition:
        """Its partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        id: choreo's own, else made of the place where it lies.
        at: where the dead letter lies.
        record: the record as it was where it failed: its original place, and its headers without the reasons.
        group: the consumer group, or the connector, that gave up.
        kind: what kind of failure it was, or at which stage: as its writer says it.
        trace: the stack trace as its writer wrote it; empty if it wrote none (choreo does not).
        failed_ms, first_failed_ms: milliseconds since the epoch; of other systems, when the dead letter was written.
        redrives: how often it had been redriven before it failed.
        parked: whether later records of its key wait for it.
        missing: which parts (key, value, headers) were too large for a dead letter; the original has them.
        type_name, correlation_id: of the event; empty if it has none that can be read.
        whole: whether `record` has its value and headers; those that are only counted need not keep them.
    """

    id: str
    family: Family
    at: Place
    record: Record
    group: str
    handler: str
    kind: str
    exception: str
    message: str
    trace: str
    fingerprint: str
    attempts: int
    failed_ms: int
    first_failed_ms: int
    redrives: int
    parked: bool
    missing: tuple[str, ...]
    type_name: str
    correlation_id: str
    whole: bool = True

    @property
    def service(self) -> str:
        """The service of ours that gave up; empty if it was another system."""
        return self.group if self.family == "choreo" else ""

    @property
    def place(self) -> Place:
        """Where the original lies; where the dead letter does, if nobody said."""
        return Place(*self.record[:3])


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What was done about a dead letter, by whom, why and when (ms)."""

    of: str
    kind: Resolved
    by: str
    why: str
    at_ms: int
    edited: bool


def read(record: Record) -> DeadLetter | Resolution | None:
    """What a record of a dead-letter topic is; None if no header says why it is there."""
    told = {name: value.decode(errors="backslashreplace") for name, value in record.headers}
    if of := told.get("choreo.dlq.resolves"):
        kind: Resolved = "discarded" if told.get("choreo.dlq.resolution") == "discarded" else "redriven"
        by, why, at_ms = (told.get(f"choreo.dlq.{name}", "") for name in ("by", "why", "at"))
        edited = "choreo.dlq.edited" in told
        return Resolution(of=of, kind=kind, by=by, why=why, at_ms=_number(at_ms.encode(), 0), edited=edited)
    for family, prefixes in _PREFIXES.items():
        if any(name.startswith(prefixes[0]) for name in told):
            return _letter(record, family, told)
    return None


def _letter(record: Record, family: Family, told: dict[str, str]) -> DeadLetter:
    raw = _said(record.headers, family)
    text = {field: value.decode(errors="backslashreplace") for field, value in raw.items()}
    number = {field: _number(value, -1) for field, value in raw.items()}
    at, drop = Place(*record[:3]), (*_PREFIXES[family], *_OWN)
    own = {name.removeprefix("choreo.dlq."): value for name, value in told.items() if family == "choreo"}
    exception = text["exception"].partition(": ")[0]  # Streams may write the exception's whole text
    known = text["topic"] and number["partition"] >= 0 and number["offset"] >= 0
    original = Record(
        *(Place(text["topic"], number["partition"], number["offset"]) if known else at),
        number["written"] if number["written"] > 0 else record.timestamp, record.key, record.value,
        [header for header in record.headers if not header[0].startswith(drop)],
    )  # fmt: skip
    try:
        meta = envelope.read(original)
        type_name, saga = meta.type_name, meta.correlation_id
    except DecodeError:
        type_name = saga = ""
    handler, failed_ms = own.get("handler", ""), _number(own.get("failed-at", "").encode(), record.timestamp)
    return DeadLetter(
        id=own.get("id") or _digest(str(at)),
        family=family,
        at=at,
        record=original,
        group=text["group"],
        handler=handler,
        kind=own.get("kind") or text["stage"],
        exception=exception,
        message=text["message"],
        trace=text["trace"],
        fingerprint=own.get("fingerprint") or _digest(text["group"], handler, exception, *frames(text["trace"])),
        attempts=max(0, number["attempts"]),
        failed_ms=failed_ms,
        first_failed_ms=_number(own.get("first-failed", "").encode(), failed_ms),
        redrives=_number(own.get("redrive-count", "").encode(), 0),
        parked=own.get("parked") == "1",
        missing=tuple(part for part in ("key", "value", "headers") if f"{part}-omitted" in own),
        type_name=type_name,
        correlation_id=saga,
    )


def frames(trace: str) -> tuple[str, ...]:
    """The innermost methods of a Java stack trace's root cause, without line numbers and generated names."""
    cause = trace.rpartition("Caused by:")[2]
    return tuple(_GENERATED.sub("", frame) for frame in _JAVA_FRAME.findall(cause)[:_FRAMES])


def _said(headers: Headers, family: Family) -> dict[str, bytes]:
    """What the headers say. A record that failed in several places names them all, the original one first."""
    last, first, said = dict(headers), dict(reversed(headers)), dict[str, bytes]()
    for field, names in _HEADERS[family].items():
        known = first if field in _PLACE else last
        said[field] = next((known[name] for name in names if name in known), b"")
    return said


def _number(raw: bytes, otherwise: int) -> int:
    """A number written as digits, or as four or eight bytes."""
    if re.fullmatch(rb"-?\d{1,19}", raw):
        return int(raw)
    return int.from_bytes(raw, "big", signed=True) if len(raw) in {4, 8} else otherwise


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()

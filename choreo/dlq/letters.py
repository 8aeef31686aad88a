"""A dead letter as its record tells it: choreo's own, and those that other systems write. Pure.

Header names: KIP-1191 (share groups, which choreo's own extend), Kafka Connect's errors.deadletterqueue, KIP-1034
(Streams), and Spring Kafka's DeadLetterPublishingRecoverer, which writes numbers as big-endian binary.
"""

from __future__ import annotations

import hashlib
import re
import sys
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

_ENDS = {
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
_NAMES = {
    family: {field: [prefix + end for end in ends for prefix in prefixes] for field, ends in _ENDS.items()}
    for family, prefixes in _PREFIXES.items()
}

_OWN = ("choreo.dlq.", "choreo.retry.", "choreo.redrive.")
_PARTS = ("key", "value", "headers")
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
        missing: which parts (key, value, headers) `record` has not: they were too large, or need not be kept.
        type_name, correlation_id: of the event; empty if it has none that can be read.
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

    @property
    def service(self) -> str:
        """The service of ours that gave up; empty if it was another system."""
        return self.group if self.family == "choreo" else ""

    @property
    def place(self) -> Place:
        """Where the original lies; where the dead letter does, if nobody said."""
        return Place(*self.record[:3])

    @property
    def key(self) -> str:
        """The key as text; empty if there is none."""
        return (self.record.key or b"").decode(errors="backslashreplace")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What was done about a dead letter, by whom, why and when (ms).

    Attributes:
        failed_ms: when that had failed; if it has failed later with the same id, it is open again. None: not said.
    """

    of: str
    kind: Resolved
    by: str
    why: str
    at_ms: int
    edited: bool
    failed_ms: int | None = None


def read(record: Record) -> DeadLetter | Resolution | None:
    """What a record of a dead-letter topic is; None if no header says why it is there."""
    told = {name: _text(value) for name, value in record.headers}
    own = {name.removeprefix("choreo.dlq."): value for name, value in told.items() if name.startswith("choreo.dlq.")}
    if own.get("resolves"):
        return Resolution(
            of=own["resolves"],
            kind="discarded" if own.get("resolution") == "discarded" else "redriven",
            by=own.get("by", ""),
            why=own.get("why", ""),
            at_ms=_number(own.get("at"), 0),
            edited="edited" in own,
            failed_ms=_number(own["failed-at"], 0) if "failed-at" in own else None,
        )
    for family, prefixes in _PREFIXES.items():
        if any(name.startswith(prefixes[0]) for name in told):
            return _letter(record, family, own)
    return None


def _letter(record: Record, family: Family, own: dict[str, str]) -> DeadLetter:
    raw = _said(record.headers, family)
    text = {field: _text(value) for field, value in raw.items()}
    original, at = _original(record, family, raw), Place(*record[:3])
    exception = text["exception"].partition(": ")[0]  # Streams may write the exception's whole text
    try:
        meta = envelope.read(original)
        type_name, saga = meta.type_name, meta.correlation_id
    except DecodeError:
        type_name = saga = ""
    handler, failed_ms = own.get("handler", ""), _number(own.get("failed-at"), record.timestamp)
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
        attempts=_number(raw["attempts"], 0),
        failed_ms=failed_ms,
        first_failed_ms=_number(own.get("first-failed"), failed_ms),
        redrives=_number(own.get("redrive-count"), 0),
        parked=own.get("parked") == "1",
        missing=tuple(part for part in _PARTS if f"{part}-omitted" in own),
        type_name=type_name,
        correlation_id=saga,
    )


def _original(record: Record, family: Family, raw: dict[str, bytes]) -> Record:
    """The record where it failed, as far as the headers tell; its dead letter was written after it."""
    topic, partition, offset = raw["topic"], _number(raw["partition"], -1), _number(raw["offset"], -1)
    if topic and 0 <= partition < 2**31 and offset >= 0:
        record = record._replace(topic=_text(topic), partition=partition, offset=offset)
    written, reasons = _number(raw["written"], 0), (*_PREFIXES[family], *_OWN)
    return record._replace(
        timestamp=written if 0 < written <= record.timestamp else record.timestamp,
        headers=[header for header in record.headers if not header[0].startswith(reasons)],
    )


def _said(headers: Headers, family: Family) -> dict[str, bytes]:
    """What the headers say. A record that failed in several places names them all, the original one first."""
    last, first = dict(headers), dict(reversed(headers))
    known = {field: first if field in Place._fields else last for field in _ENDS}
    return {
        field: next((known[field][name] for name in names if name in known[field]), b"")
        for field, names in _NAMES[family].items()
    }


def frames(trace: str) -> tuple[str, ...]:
    """The innermost methods of a Java stack trace's root cause, without line numbers and generated names."""
    cause = trace.rpartition("Caused by:")[2]
    return tuple(_GENERATED.sub("", frame) for frame in _JAVA_FRAME.findall(cause)[:_FRAMES])


def _text(raw: bytes) -> str:
    """Many dead letters say the same, and shall share its memory."""
    return sys.intern(raw.decode(errors="backslashreplace"))


def _number(said: bytes | str | None, otherwise: int) -> int:
    """A number from 0 up, written as at most 18 digits, or as four or eight bytes."""
    raw = said.encode() if isinstance(said, str) else said or b""
    if re.fullmatch(rb"\d{1,18}", raw):
        return int(raw)
    number = int.from_bytes(raw, "big", signed=True) if len(raw) in {4, 8} else -1
    return number if number >= 0 else otherwise


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()

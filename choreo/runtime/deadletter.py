"""Making a dead letter: the record as it was, and in its headers why it is there. Pure.

Header names: `__dlq.errors.*` of Kafka's KIP-1191, and `choreo.dlq.*` for what that does not name.
"""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from choreo.choreography import dead_letter_topic
from choreo.log.port import Headers, NewRecord, Record
from choreo.runtime.parking import OWN_HEADERS

Stage = Literal["decode", "handle", "emit"]
LetterKind = Literal["undecodable", "rejected", "fatal", "exhausted", "undeclared", "killer", "compensation"]
_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why a record goes to the dead letters.

    Attributes:
        stage: `decode` (no event could be made of it), `handle` (the handler raised), `emit` (what it returned
            cannot be published).
        kind: `undecodable`; `rejected` (a business error), `fatal`, `exhausted` (no attempts or no time left);
            `undeclared` (it returned what it does not declare); `killer` (it ended the process, again and again);
            `compensation` (whatever the reason: what a failed saga did is not undone).
        handler: the handler's name; empty where that is no single one.
        attempts: how often it was called.
        first_failed_ms, now_ms: when it failed first and for good, milliseconds since the epoch.
        subject: the event's source and id, or (if it cannot be read) its place: the same in each copy.
        redrives: how often it was redriven before.
        parked: whether its key waits until it is redriven or discarded.
    """

    service: str
    handler: str
    stage: Stage
    kind: LetterKind
    error: BaseException
    attempts: int
    first_failed_ms: int
    now_ms: int
    subject: str
    redrives: int = 0
    parked: bool = False

    @property
    def letter_id(self) -> str:
        """The dead letter's id; the same if the same failure is written twice."""
        text = f"{self.service}\0{self.handler}\0{self.subject}\0{self.redrives}"
        return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def dead_letter(record: Record, failed: Failed, max_bytes: int) -> NewRecord:
    """The record for `dlq.<service>`: key, value, headers and timestamp untouched, the reason in further headers.

    What is too large for the log is left out, first the value, then the headers, then the key; further headers say so
    and where the original lies.
    """
    key, value, headers = record.key, record.value, _without_earlier(record.headers)
    reason = _reason(record, failed)
    if value is not None and size_of(key, value, headers) > max_bytes:
        reason.append(_omitted("value", len(value), record))
        value = None
    if headers and size_of(key, value, headers) > max_bytes:
        reason.append(_omitted("headers", size_of(None, None, headers), record))
        headers = []
    if key is not None and len(key) > max_bytes:
        reason.append(_omitted("key", len(key), record))
        key = None
    return NewRecord(dead_letter_topic(failed.service), key, value, [*headers, *reason], record.timestamp)


def size_of(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The bytes of a record that its writer decides about, with the few that frame each header."""
    size = len(key or b"") + len(value or b"")
    for name, text in headers:
        size += len(name) + len(text or b"") + 10
    return size


def said(error: BaseException) -> str:
    """An error's text; some errors cannot even make it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the text is somebody else's code
        return "its text cannot be made"


def _omitted(part: str, size: int, record: Record) -> tuple[str, bytes]:
    place = f"{record.topic}/{record.partition}@{record.offset}"
    return f"choreo.dlq.{part}-omitted", f"{size} bytes; the original is at {place}".encode()


def _reason(record: Record, failed: Failed) -> Headers:
    error = failed.error
    texts = {
        "__dlq.errors.topic": record.topic,
        "__dlq.errors.partition": str(record.partition),
        "__dlq.errors.offset": str(record.offset),
        "__dlq.errors.group": failed.service,
        "__dlq.errors.delivery.count": str(failed.attempts),
        "__dlq.errors.message": said(error)[:4000],
        "choreo.dlq.exception": f"{type(error).__module__}.{type(error).__qualname__}",
        "choreo.dlq.fingerprint": fingerprint(failed.handler, error),
        "choreo.dlq.stage": failed.stage,
        "choreo.dlq.handler": failed.handler,
        "choreo.dlq.failed-at": str(failed.now_ms),
        "choreo.dlq.first-failed": str(failed.first_failed_ms),
        "choreo.dlq.id": failed.letter_id,
        "choreo.dlq.kind": failed.kind,
        "choreo.dlq.redrive-count": str(failed.redrives),
        "choreo.dlq.parked": str(int(failed.parked)),
    }
    return [(name, text.encode("utf-8", "backslashreplace")) for name, text in texts.items()]


def _without_earlier(headers: Headers) -> Headers:
    """The headers without the reasons of an earlier dead letter (the record may have been redriven)."""
    return [header for header in headers if not header[0].startswith(("__dlq.errors.", "choreo.dlq.", *OWN_HEADERS))]


def fingerprint(handler: str, error: BaseException) -> str:
    """Equal for failures that share handler, exception type and the last frames; free of line numbers and values."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    parts = [handler, type(error).__qualname__, *(f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()

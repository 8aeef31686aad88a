"""From a record to what is kept of it. Pure, and quick: a whole log is read through this.

Only headers are looked at. Whatever is not as choreo writes it is said (`oddity`) and kept all the same: somebody will
ask for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

from choreo.choreography import dead_letter_topic, retry_topic
from choreo.dlq.letters import DeadLetter, Place, Resolution, read
from choreo.errors import DecodeError
from choreo.log.port import Record
from choreo.runtime.parking import OWN_HEADERS, returned
from choreo.saga.sighting import Again, Kind, Letter, Settled, Sighting
from choreo.wire import envelope

_sighting: Callable[[tuple[object, ...]], Sighting] = partial(tuple.__new__, Sighting)  # quicker than its own
_place: Callable[[tuple[str, int, int]], Place] = partial(tuple.__new__, Place)
_DEAD, _RETRY = dead_letter_topic(""), retry_topic("")
_LONGEST = 200
"""Characters of a name, an id or a key that are kept; they are looked up by an index, and are shown."""
_ERROR = 1_000
"""Characters of an error's message that are kept."""
_YEAR_10000 = 253_402_300_800_000
"""Milliseconds after which nobody knows times."""
_MOST = 2**31
"""Numbers of calls, and of partitions, that no store keeps begin here."""
_LAST_OFFSET = 2**63


def sight(record: Record) -> Sighting | None:
    """What is kept of a record; None if it belongs to no saga: a tombstone, or a dead letter without a word why."""
    topic = record[0]
    if topic.startswith((_DEAD, _RETRY)):
        return _dead(record) if topic.startswith(_DEAD) else _again(record)
    return _event(record)


def _event(record: Record) -> Sighting | None:
    """Of a record as choreo writes it; of others, see `_odd`."""
    topic, partition, offset, written, key, value, headers = record
    said = dict(headers)
    got = said.get
    try:
        saga, event_id = said["ce_correlationid"].decode(), said["ce_id"].decode()
        type_name, source = said["ce_type"].decode(), said["ce_source"].decode()
        cause, compensates, parent = got("ce_causationid"), got("ce_compensates"), got("ce_parentid")
        name = b"" if key is None else key
        made = (
            _place((topic, partition, offset)),
            "event",
            saga,
            event_id,
            type_name,
            source,
            cause.decode() if cause else None,
            compensates.decode() if compensates else None,
            parent.decode() if parent else None,
            _ms(said["ce_time"].decode()),
            written,
            name.decode(),
            got("traceparent", b"").decode(),
            "",
            None,
        )
    except (KeyError, ValueError, OverflowError):
        return _odd(record)
    all_there = saga and event_id and type_name and source and value is not None and 0 <= written < _YEAR_10000
    names = saga + event_id + type_name + source
    if not all_there or len(names) + len(name) > _LONGEST or "\0" in names or b"\0" in name:
        return _odd(record)
    for other in (cause, compensates, parent):
        if other and (len(other) > _LONGEST or b"\0" in other):
            return _odd(record)
    return _sighting(made)


def _written(record: Record) -> int:
    """The record's time; 0 if it has none that can be."""
    return record.timestamp if 0 <= record.timestamp < _YEAR_10000 else 0


def _ms(said: str) -> int:
    """An RFC 3339 time in ms since the epoch; ValueError, OverflowError if it is none."""
    when = datetime.fromisoformat(said)
    if when.tzinfo is None:
        raise ValueError(said)
    return round(when.timestamp() * 1_000)


# --- what is not as choreo writes it -------------------------------------------------------------------------------


class _Texts:
    """The texts of a record's headers, with what is wrong with them."""

    def __init__(self, record: Record) -> None:
        self._raw = dict(record.headers)
        self.wrong: list[str] = []

    def of(self, raw: bytes, what: str) -> str:
        """As text, whatever it is, and not too long."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.wrong.append(f"its {what} is no UTF-8")
            text = raw.decode(errors="backslashreplace")
        if "\0" in text:
            self.wrong.append(f"its {what} has a NUL in it")
            text = text.replace("\0", "\\0")
        if len(text) > _LONGEST:
            self.wrong.append(f"its {what} has {len(text):,} characters")
            text = text[: _LONGEST - 17] + "…" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return text

    def named(self, header: str, *, missing: str = "") -> str:
        """A header's; empty if it is not there, which is wrong if there are words for it."""
        text = self.of(self._raw.get(header) or b"", f"header {header}")
        if not text and missing:
            self.wrong.append(missing)
        return text


def _odd(record: Record) -> Sighting | None:
    """Of any record: another producer's, a structured CloudEvent, one with holes or nonsense in its headers."""
    has = {name for name, _ in record.headers}
    if record.value is None and not any(name.startswith("ce_") for name in has):
        return None
    binary, why = record, ""
    try:
        binary = envelope.binary_mode(record)
    except DecodeError as error:
        why = error.why
    texts = _Texts(binary)
    texts.wrong += [why] if why else []
    texts.wrong += ["a CloudEvent in structured mode"] if binary is not record else []
    foreign = not why and not any(name.startswith("ce_") and value for name, value in binary.headers)
    texts.wrong += ["no CloudEvents headers: of a producer that is not choreo"] if foreign else []
    texts.wrong += ["a tombstone: it has no value"] if record.value is None else []
    return _told(binary, texts, silent=foreign or bool(why))


def _told(record: Record, texts: _Texts, *, silent: bool) -> Sighting:
    """What the headers say, and what stands in for what they do not.

    Args:
        silent: whether nothing more is said of what is missing, since it is plain that all is.
    """

    def named(header: str, missing: str) -> str:
        return texts.named(header, missing="" if silent else missing)

    event_id = named("ce_id", "no event id: one is made of its place") or envelope.id_of(record)
    saga = named("ce_correlationid", "no correlation id: a saga of its own") or event_id
    type_name = named("ce_type", "no type")
    source = named("ce_source", "no source") or f"/{record.topic}"
    about, written = named("ce_time", "no time: the record's is taken"), _written(record)
    try:
        produced = _ms(about) if about else written
    except (ValueError, OverflowError):
        texts.wrong.append(f"its time {about[:40]!r} is none: the record's is taken")
        produced = written
    if written != record.timestamp:
        texts.wrong.append("the record has no time")
    more = [texts.named(name) or None for name in ("ce_causationid", "ce_compensates", "ce_parentid")]
    key, trace = texts.of(record.key or b"", "key"), texts.named("traceparent")
    oddity = "; ".join(texts.wrong)
    made = (_place(record[:3]), "event", saga, event_id, type_name, source, *more, produced, written, key, trace)
    return _sighting((*made, oddity, None))


# --- retry topics and dead letters ---------------------------------------------------------------------------------


def _again(record: Record) -> Sighting | None:
    """Of a record of `retry.<service>`."""
    try:
        told = returned(record)
        of = _place(told.record[:3])
    except DecodeError as error:
        return _strange(record, f"on a retry topic, but {error.why}")
    counts, times = (of.partition, told.attempt, told.redrives), (told.due_ms, told.first_failed_ms)
    if max(map(abs, counts)) >= _MOST or abs(of.offset) >= _LAST_OFFSET or max(map(abs, times)) >= _YEAR_10000:
        return _strange(record, "on a retry topic, but with numbers that cannot be")
    if "\0" in of.topic or "\0" in told.handler:
        return _strange(record, "on a retry topic, but with a NUL in a name")
    said = Again(
        f"{record.topic.removeprefix(_RETRY)}.{told.handler}",
        *(of, told.attempt, told.due_ms, told.first_failed_ms, told.redrives, told.discard),
    )
    return _about(record, told.record, "again", said)


def _dead(record: Record) -> Sighting | None:
    """Of a record of a dead-letter topic, whoever wrote it."""
    found = read(record)
    if isinstance(found, Resolution):
        failed_ms = None if found.failed_ms is None else _time(found.failed_ms)
        settled = Settled(_clean(found.of), found.kind, found.by, found.why[:_ERROR], _time(found.at_ms), failed_ms)
        key = _Texts(record).of(record.key or b"", "key")
        nothing = ("", "", "", "", None, None, None)
        times = (settled.at_ms or _written(record), _written(record))
        return _sighting((_place(record[:3]), "settled", *nothing, *times, key, "", "", settled))
    if found is None:
        return _strange(record, "on a dead-letter topic, but no header says why")
    return _about(record, found.record, "letter", _letter(found))


def _clean(name: str) -> str:
    return name[:_LONGEST].replace("\0", "\\0")


def _time(said_ms: int) -> int:
    """A time that can be; the last one for what is later."""
    return min(said_ms, _YEAR_10000 - 1)


def _letter(found: DeadLetter) -> Letter:
    of, attempts, redrives = found.place, min(found.attempts, _MOST - 1), min(found.redrives, _MOST - 1)
    return Letter(
        _clean(found.id),
        _clean(f"{found.group}.{found.handler}"),
        of._replace(topic=_clean(of.topic)),
        *(found.kind, found.exception[:_LONGEST], found.message[:_ERROR], found.fingerprint[:_LONGEST], attempts),
        *(_time(found.first_failed_ms), _time(found.failed_ms), redrives, found.parked),
    )


def _about(record: Record, original: Record, kind: Kind, said: Again | Letter) -> Sighting:
    """Of a record that is about another one: that one's, with the place of this one."""
    seen = _event(original) or _told(original, _Texts(original), silent=True)
    return seen._replace(place=_place(record[:3]), kind=kind, said=said)


def _strange(record: Record, why: str) -> Sighting | None:
    """Of a record that is not what its topic is for; without any header of an event it tells nothing."""
    plain = record._replace(headers=[header for header in record.headers if not header[0].startswith(OWN_HEADERS)])
    if not any(name.startswith("ce_") for name, _ in plain.headers):
        return None
    seen = _event(plain)
    return seen and seen._replace(oddity="; ".join(filter(None, [why, seen.oddity])))

"""Whatever lies in a log is seen as what it is, and nothing of it raises."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.dlq.letters import Place, read
from choreo.dlq.records import Reason, resolving
from choreo.events import Metadata
from choreo.log.port import NewRecord, Record
from choreo.runtime.deadletter import Failed, dead_letter
from choreo.runtime.parking import retry_record
from choreo.saga.reading import sight
from choreo.saga.sighting import Again, Letter, Settled, Sighting
from choreo.saga.store.packing import key_of, pack, saga_of, unpack
from choreo.wire import envelope
from choreo.wire.ids import derive_event_id, new_event_id

SAGA, CAUSE = new_event_id(), new_event_id()
EVENT = derive_event_id(CAUSE, "payments", "charge", 0, time_ms=0)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
META = Metadata(EVENT, "PaymentCharged", "payments", "2026-10-09T10:00:00.123Z", SAGA, CAUSE, TRACE, None, None, None)
WHEN = 1_791_540_000_123


def record(
    meta: Metadata = META, *, key: bytes | None = b"o-1", value: bytes | None = b"\0\0\0\0\1x", **changes
) -> Record:
    common = envelope.constant(meta.type_name, "schemas/payments/PaymentCharged.avsc")
    plain = Record("payments", 2, 41, WHEN + 5, key, value, envelope.write(meta, common, key or b""))
    return plain._replace(**changes)


def lies(new: NewRecord, offset: int = 7) -> Record:
    return Record(new.topic, 0, offset, new.timestamp or 99, new.key, new.value, new.headers)


def with_header(name: str, value: bytes | None) -> Record:
    headers = [(each, old) for each, old in record().headers if each != name]
    return record(headers=[*headers, (name, value)] if value is not None else headers)


PLAIN = Sighting(
    Place("payments", 2, 41), "event", SAGA, EVENT, "PaymentCharged", "payments", CAUSE, None, None, WHEN, WHEN + 5, "o-1",
    TRACE,
)  # fmt: skip


def test_an_event_of_choreo() -> None:
    assert sight(record()) == PLAIN
    undone = META._replace(compensates="x", parent_id="p", causation_id=None, traceparent=None)
    assert sight(record(undone, key=None)) == PLAIN._replace(
        compensates="x", parent_id="p", causation_id=None, traceparent="", key=""
    )


def test_it_reads_what_the_runtime_reads() -> None:
    for odd in (with_header("ce_correlationid", None), with_header("ce_id", None), record(headers=[])):
        seen, meta = sight(odd), envelope.read(odd)
        assert seen is not None
        assert (seen.event_id, seen.saga, seen.type_name, seen.source) == (
            meta.event_id, meta.correlation_id, meta.type_name, meta.source,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("odd", "changes", "said"),
    [
        (with_header("ce_correlationid", None), {"saga": EVENT}, "no correlation id: a saga of its own"),
        (with_header("ce_type", None), {"type_name": ""}, "no type"),
        (with_header("ce_source", None), {"source": "/payments"}, "no source"),
        (with_header("ce_time", None), {"produced_ms": WHEN + 5}, "no time: the record's is taken"),
        (with_header("ce_time", b"noon"), {"produced_ms": WHEN + 5}, "its time 'noon' is none: the record's is taken"),
        (
            with_header("ce_time", b"2026-10-09T10:00:00"),
            {"produced_ms": WHEN + 5},
            "its time '2026-10-09T10:00:00' is none",
        ),
        (with_header("ce_type", b"P\xff"), {"type_name": "P\\xff"}, "its header ce_type is no UTF-8"),
        (with_header("ce_source", b"a\0b"), {"source": "a\\0b"}, "its header ce_source has a NUL in it"),
        (record(key=b"\xff"), {"key": "\\xff"}, "its key is no UTF-8"),
        (record(value=None), {}, "a tombstone: it has no value"),
        (record(timestamp=-1), {"written_ms": 0}, "the record has no time"),
    ],
)
def test_what_is_odd_is_said(odd: Record, changes: dict, said: str) -> None:
    seen = sight(odd)
    assert seen is not None
    assert said in seen.oddity
    assert seen._replace(oddity="") == PLAIN._replace(**changes)


def test_what_is_too_long_is_cut_and_stays_different() -> None:
    one, two = (sight(record(META._replace(correlation_id="x" * 999 + end))) for end in "ab")
    assert one is not None
    assert two is not None
    assert len(one.saga) == 200
    assert one.saga != two.saga
    assert "its header ce_correlationid has 1,000 characters" in one.oddity


def test_another_producers_record_has_a_saga_of_its_own() -> None:
    seen = sight(record(headers=[("x", b"y")]))
    assert seen is not None
    assert seen.saga == seen.event_id == envelope.id_of(record())
    assert (seen.type_name, seen.source, seen.key) == ("", "/payments", "o-1")
    assert seen.oddity == "no CloudEvents headers: of a producer that is not choreo"


def test_a_structured_cloud_event() -> None:
    document = {
        "id": "e-1",
        "type": "Paid",
        "source": "erp",
        "time": "2026-10-09T10:00:00.123Z",
        "correlationid": "s-1",
        "data": {},
    }
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    seen = sight(record(headers=headers, value=json.dumps(document).encode()))
    assert seen is not None
    assert (seen.saga, seen.event_id, seen.type_name, seen.source, seen.produced_ms) == (
        "s-1",
        "e-1",
        "Paid",
        "erp",
        WHEN,
    )
    assert seen.oddity == "a CloudEvent in structured mode"
    broken = sight(record(headers=headers, value=b"{"))
    assert broken is not None
    assert "its value is no JSON" in broken.oddity


def test_a_tombstone_of_nobody_is_nothing() -> None:
    assert sight(record(headers=[], value=None)) is None
    assert sight(record(topic="dlq.payments", headers=[("x", b"y")])) is None
    assert sight(record(topic="retry.payments", headers=[])) is None


def test_a_record_of_a_retry_topic() -> None:
    new = retry_record("mail", record(), handler="tell", attempt=2, due_ms=5_000, first_failed_ms=1_000)
    said = Again("mail.tell", Place("payments", 2, 41), 2, 5_000, 1_000, 0, False)
    assert sight(lies(new)) == PLAIN._replace(place=Place("retry.mail", 0, 7), kind="again", said=said)
    huge = [(name, b"9" * 30 if name == "choreo.retry.due" else value) for name, value in new.headers]
    seen = sight(lies(new)._replace(headers=huge))
    assert seen is not None
    assert (seen.kind, seen.oddity) == ("event", "on a retry topic, but with numbers that cannot be")
    strange = sight(record(topic="retry.mail"))
    assert strange is not None
    assert strange.oddity.startswith("on a retry topic, but its header")


def failed(**changes) -> Failed:
    given = {
        "service": "mail", "handler": "tell", "stage": "handle", "kind": "exhausted", "error": ValueError("no\0"),
        "attempts": 3, "first_failed_ms": 1_000, "now_ms": 2_000, "subject": f"payments {EVENT}", "parked": True,
    }  # fmt: skip
    return Failed(**(given | changes))


def test_a_dead_letter_and_its_resolution() -> None:
    dead = lies(dead_letter(record(), failed(), 1_000_000))
    seen = sight(dead)
    assert seen is not None
    assert isinstance(seen.said, Letter)
    assert (seen.saga, seen.event_id, seen.kind, seen.place) == (SAGA, EVENT, "letter", Place("dlq.mail", 0, 7))
    assert seen.said.id == failed().letter_id
    assert seen.said[1:4] == ("mail.tell", Place("payments", 2, 41), "exhausted")
    assert seen.said[7:] == (3, 1_000, 2_000, 0, True)
    letter = read(dead)
    back, done = resolving(
        letter, letter.record, Reason(kind="redriven", by="ada", why="it is back"), 9_000, edited=False
    )
    again, settled = sight(lies(back, 8)), sight(lies(done, 9))
    assert again is not None
    assert isinstance(again.said, Again)
    assert (again.said.handler, again.said.redrives) == ("mail.tell", 1)
    assert settled is not None
    assert settled.said == Settled(seen.said.id, "redriven", "ada", "it is back", 9_000, 2_000)
    assert (settled.kind, settled.saga, settled.produced_ms) == ("settled", "", 9_000)


def test_a_dead_letter_of_what_nobody_could_read_belongs_to_the_saga_of_the_original() -> None:
    original = record(headers=[], value=b"garbage")
    dead = sight(lies(dead_letter(original, failed(handler="", stage="decode", kind="undecodable"), 1_000_000)))
    seen = sight(original)
    assert dead is not None
    assert seen is not None
    assert (dead.saga, dead.event_id) == (seen.saga, seen.event_id)
    assert dead.said is not None
    assert dead.said[1] == "mail."


@pytest.mark.parametrize(
    "headers",
    [
        [("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-offset", (3).to_bytes(8, "big")),
         ("kafka_dlt-original-partition", (1).to_bytes(4, "big")), ("kafka_dlt-exception-fqcn", b"java.lang.X")],
        [("__connect.errors.topic", b"orders"), ("__connect.errors.partition", b"1"), ("__connect.errors.offset", b"3")],
        [("__streams.errors.topic", b"orders"), ("__streams.errors.partition", b"1"), ("__streams.errors.offset", b"3")],
        [("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"1"), ("__dlq.errors.offset", b"3")],
    ],
    ids=["spring", "connect", "streams", "kip-1191"],
)  # fmt: skip
def test_dead_letters_of_other_systems(headers: list[tuple[str, bytes]]) -> None:
    seen = sight(record(topic="dlq.theirs", headers=[*record().headers, *headers]))
    assert seen is not None
    assert isinstance(seen.said, Letter)
    assert (seen.saga, seen.said.of) == (SAGA, Place("orders", 1, 3))


NAMES = st.sampled_from(
    [name for name, _ in envelope.write(META._replace(compensates="x", parent_id="y"), [], b"")]
    + ["ce_type", "content-type", "choreo.retry.topic", "choreo.retry.partition", "choreo.retry.offset"]
    + ["choreo.retry.handler", "choreo.retry.attempt", "choreo.retry.due", "choreo.retry.first-failed"]
    + ["choreo.redrive.count", "choreo.dlq.id", "choreo.dlq.resolves", "choreo.dlq.at", "__dlq.errors.topic"]
    + ["__dlq.errors.offset", "__dlq.errors.partition", "kafka_dlt-original-topic", "choreo.dlq.failed-at"]
)
VALUES = st.one_of(
    st.binary(max_size=40), st.text(max_size=300).map(lambda text: text.encode()), st.integers().map(lambda n: b"%d" % n),
    st.sampled_from([SAGA.encode(), SAGA.upper().encode(), b"2026-10-09T10:00:00Z", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59",
                     b"application/cloudevents+json", TRACE.encode(), TRACE.upper().encode(), b""]),
)  # fmt: skip


@given(
    topic=st.sampled_from(["orders", "retry.mail", "dlq.mail", "retry.", "dlq."]),
    key=st.none() | VALUES,
    value=st.none()
    | st.binary(max_size=20)
    | st.just(b'{"id": "\\ud800", "type": 3}')
    | st.just(b'{"id": "x\\u0000"}'),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=14),
    times=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=400, deadline=None)
def test_nothing_raises_and_all_of_it_can_be_kept(topic, key, value, headers, times) -> None:
    seen = sight(Record(topic, 0, 5, times, key, value, headers))
    if seen is None:
        return
    assert all("\0" not in text for text in (seen.saga, seen.event_id, seen.type_name, seen.source, seen.key))
    assert seen.kind == "settled" or (seen.saga and seen.event_id and seen.source)
    names = {seen.type_name: 1, seen.source: 2}
    row = pack(seen, key_of(seen.saga), {(topic, 0): 3}, names)
    there = {number: text for text, number in names.items()}
    assert unpack(seen.place.of, row[2], row[3], there, saga=seen.saga) == seen
    assert saga_of(key_of(seen.saga)) == seen.saga


@given(st.text(alphabet=string.hexdigits + "-\xff", max_size=40) | st.uuids().map(str), st.text(max_size=20))
def test_no_two_sagas_have_one_key(one: str, two: str) -> None:
    assert saga_of(key_of(one)) == one
    assert (key_of(one) == key_of(two)) == (one == two)

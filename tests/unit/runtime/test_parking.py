"""Records of the retry topic, and the names of parked keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.errors import DecodeError
from choreo.log.port import Record
from choreo.runtime.parking import lane_of, retry_record, returned

ORIGINAL = Record("orders", 3, 77, 1_700_000_000_000, b"o1", b"value", [("ce_id", b"e1"), ("x", b"1"), ("x", b"2")])
names = st.text("ab.-", max_size=3)


def read(written, **changes):
    record = Record(written.topic, 0, 5, written.timestamp, written.key, written.value, written.headers)
    return record._replace(**changes)


@given(
    handler=names,
    attempt=st.integers(0, 99),
    due=st.integers(0, 2**41),
    first=st.integers(0, 2**41),
    key=st.none() | st.binary(max_size=5),
)
def test_a_record_comes_back_as_it_went(handler, attempt, due, first, key):
    original = ORIGINAL._replace(key=key)
    written = retry_record("pay", original, handler=handler, attempt=attempt, due_ms=due, first_failed_ms=first)
    assert (written.topic, written.key, written.value, written.timestamp) == (
        *("retry.pay", key, b"value", original.timestamp),
    )
    back = returned(read(written))
    assert back == (original, handler, attempt, due, first, 0, False)


def test_the_headers_of_the_time_before_are_gone():
    once = retry_record("pay", ORIGINAL, handler="h", attempt=1, due_ms=9, first_failed_ms=3)
    again = returned(read(once)).record
    twice = retry_record("pay", again, handler="h", attempt=2, due_ms=0, first_failed_ms=3)
    names = [name for name, _ in twice.headers]
    assert len(names) == len(once.headers)
    assert names.count("choreo.retry.attempt") == 1
    assert returned(read(twice)).attempt == 2


def test_redrive_and_discard_are_told():
    more = [("choreo.redrive.count", "2"), ("choreo.redrive.by", "ann"), ("choreo.redrive.discard", "1")]
    back = returned(read(retry_record("p", ORIGINAL, handler="h", attempt=0, due_ms=0, first_failed_ms=3, more=more)))
    assert (back.redrives, back.discard, back.record) == (2, True, ORIGINAL)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (lambda headers: [], "choreo.retry.topic"),
        (lambda headers: [h for h in headers if h[0] != "choreo.retry.due"], "choreo.retry.due"),
        (lambda headers: [*headers, ("choreo.retry.offset", b"x")], "invalid literal"),
        (lambda headers: [*headers, ("choreo.retry.handler", b"\xff")], "decode"),
    ],
    ids=["none", "one missing", "no number", "no text"],
)
def test_what_choreo_has_not_written_is_refused(headers, reason):
    written = read(retry_record("p", ORIGINAL, handler="h", attempt=0, due_ms=0, first_failed_ms=3))
    with pytest.raises(DecodeError, match=reason):
        returned(written._replace(headers=headers(written.headers)))


def test_lanes_differ_by_handler_topic_and_key():
    lanes = {lane_of(handler, topic, key) for handler in "ab" for topic in "cd" for key in (b"", b"e", b"f")}
    assert len(lanes) == 12
    assert {len(lane) for lane in lanes} == {16}

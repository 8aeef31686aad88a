"""Dead letters: the record as it was, and why it is there."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.log.port import Record
from choreo.runtime.deadletter import Failed, dead_letter, fingerprint, said, size_of

REASONS = {
    "__dlq.errors.topic",
    "__dlq.errors.partition",
    "__dlq.errors.offset",
    "__dlq.errors.group",
    "__dlq.errors.delivery.count",
    "__dlq.errors.message",
    "choreo.dlq.exception",
    "choreo.dlq.fingerprint",
    "choreo.dlq.stage",
    "choreo.dlq.handler",
    "choreo.dlq.failed-at",
    "choreo.dlq.first-failed",
    "choreo.dlq.id",
    "choreo.dlq.kind",
    "choreo.dlq.redrive-count",
    "choreo.dlq.parked",
}


def record(key=b"o1", value=b"value", headers=(("ce_id", b"e1"), ("x", b"1"), ("x", b"2"))) -> Record:
    return Record("orders", 3, 77, 1_700_000_000_000, key, value, list(headers))


def failed(error: BaseException | None = None, **changes) -> Failed:
    fields = {
        "service": "payments",
        "handler": "charge",
        "stage": "handle",
        "kind": "exhausted",
        "subject": "shop\0e1",
        "first_failed_ms": 1_700_000_000_500,
        "error": error or ValueError("no money"),
        "attempts": 5,
        "now_ms": 1_700_000_001_234,
    }
    return Failed(**(fields | changes))


def test_everything_of_the_record_is_kept_and_the_reason_is_added():
    letter = dead_letter(record(), failed(), 1_000)
    assert (letter.topic, letter.key, letter.value) == ("dlq.payments", b"o1", b"value")
    assert letter.timestamp == 1_700_000_000_000
    assert letter.headers[:3] == [("ce_id", b"e1"), ("x", b"1"), ("x", b"2")]
    told = dict(letter.headers[3:])
    assert set(told) == REASONS
    assert told["__dlq.errors.topic"] == b"orders"
    assert told["__dlq.errors.partition"] == b"3"
    assert told["__dlq.errors.offset"] == b"77"
    assert told["__dlq.errors.group"] == b"payments"
    assert told["__dlq.errors.delivery.count"] == b"5"
    assert told["__dlq.errors.message"] == b"no money"
    assert told["choreo.dlq.exception"] == b"builtins.ValueError"
    assert told["choreo.dlq.stage"] == b"handle"
    assert told["choreo.dlq.handler"] == b"charge"
    assert told["choreo.dlq.failed-at"] == b"1700000001234"
    assert told["choreo.dlq.first-failed"] == b"1700000000500"
    assert told["choreo.dlq.kind"] == b"exhausted"
    assert told["choreo.dlq.redrive-count"] == told["choreo.dlq.parked"] == b"0"


def test_one_failure_has_one_id_and_each_redrive_another():
    one = failed().letter_id
    assert one == failed(ValueError("other"), now_ms=5, attempts=9).letter_id
    others = [failed(**{name: value}) for name, value in (("redrives", 1), ("handler", "x"), ("subject", "shop\0e2"))]
    assert len({one, *(other.letter_id for other in others)}) == 4


@given(
    key=st.none() | st.binary(max_size=300),
    value=st.none() | st.binary(max_size=300),
    headers=st.lists(st.tuples(st.text("abc", max_size=9), st.binary(max_size=300)), max_size=4),
    limit=st.integers(0, 700),
)
def test_what_is_too_large_is_left_out_and_named(key, value, headers, limit):
    original = record(key, value, headers)
    letter = dead_letter(original, failed(), limit)
    kept = [header for header in letter.headers if not header[0].startswith(("__dlq.", "choreo.dlq."))]
    assert size_of(letter.key, letter.value, kept) <= limit
    omitted = {name.split(".")[2].removesuffix("-omitted") for name, _ in letter.headers if name.endswith("-omitted")}
    assert letter.value == (None if "value" in omitted else value)
    assert kept == ([] if "headers" in omitted else headers)
    assert letter.key == (None if "key" in omitted else key)
    if size_of(key, value, headers) <= limit:
        assert not omitted
    for name, text in letter.headers:
        if name.endswith("-omitted"):
            assert text.endswith(b" bytes; the original is at orders/3@77")


def test_no_header_is_doubled_when_a_record_fails_again():
    first = dead_letter(record(value=b"v" * 2_000), failed(), 1_000)
    again = Record("orders", 0, 5, 1, first.key, b"short", first.headers)
    second = dead_letter(again, failed(RuntimeError("worse"), attempts=2), 1_000)
    names = [name for name, _ in second.headers]
    assert names == ["ce_id", "x", "x", *[name for name in names if name in REASONS]], "nothing of the first reason"
    assert len(REASONS & set(names)) == len(names) - 3
    assert dict(second.headers)["__dlq.errors.message"] == b"worse"


@pytest.mark.parametrize("text", ["half a pair \ud800", "x" * 100_000, "", "zero \0 byte"])
def test_any_message_can_be_written(text):
    message = dict(dead_letter(record(), failed(ValueError(text)), 1_000).headers)["__dlq.errors.message"]
    assert message.decode()[:20] == text.encode("utf-8", "backslashreplace").decode()[:20]
    assert len(message) <= 16_000


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_error_without_text_does_not_get_in_the_way():
    assert said(MuteError()) == "its text cannot be made"
    assert dict(dead_letter(record(), failed(MuteError()), 1_000).headers)["__dlq.errors.message"]


def raised_by(source: str) -> BaseException:
    scope: dict[str, object] = {}
    exec(compile(textwrap.dedent(source), "handlers.py", "exec"), scope)  # noqa: S102 - two versions of one function
    try:
        scope["charge"]()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


ORIGINAL = "def pay():\n    raise ValueError('order 1')\ndef charge():\n    pay()"
MOVED = "\n\n\ndef pay():\n    x = 1\n    raise ValueError('order 2')\n\ndef charge():\n    pay()"


def test_a_fingerprint_survives_other_lines_and_other_values():
    assert fingerprint("charge", raised_by(ORIGINAL)) == fingerprint("charge", raised_by(MOVED))


@pytest.mark.parametrize(
    "changed",
    [ORIGINAL.replace("ValueError", "KeyError"), ORIGINAL.replace("pay", "refund")],
    ids=["another exception", "another place"],
)
def test_a_fingerprint_tells_failures_apart(changed):
    assert fingerprint("charge", raised_by(ORIGINAL)) != fingerprint("charge", raised_by(changed))
    assert fingerprint("charge", raised_by(ORIGINAL)) != fingerprint("settle", raised_by(ORIGINAL))

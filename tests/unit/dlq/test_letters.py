"""Dead letters of the four header families (and KIP-1191's plain form), from records as those systems write them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.dlq.letters import Resolution, frames, read
from choreo.log.port import Record
from tests.unit.dlq import samples


@pytest.mark.parametrize("family", samples.FAMILIES)
def test_every_family_says_where_the_original_lies_and_leaves_the_event_as_it_was(family):
    letter = read(samples.lying(samples.FAMILIES[family]))
    assert letter.family == family
    assert letter.record == Record("orders", 3, 77, 1_700_000_000_000, b"o-1", b'{"id": "o-1"}', samples.EVENT)
    assert str(letter.place) == "orders/3@77"
    assert str(letter.at) == "dlq.payments/1@5"
    assert (letter.type_name, letter.correlation_id) == ("OrderPlaced", "saga-1")


@pytest.mark.parametrize(
    ("family", "group", "exception", "message", "attempts", "kind"),
    [
        ("choreo", "payments", "shop.GatewayTimeout", "no answer", 5, "exhausted"),
        ("kip-1191", "share-1", "", "the consumer rejected it", 5, ""),
        ("connect", "s3-sink", "org.apache.kafka.connect.errors.DataException", "Failed to deserialize", 0, "VALUE_CONVERTER"),
        ("streams", "", "java.lang.IllegalStateException", "bad state", 0, ""),
        ("spring", "billing", "com.acme.GatewayTimeout", "no answer", 4, ""),
    ],
)  # fmt: skip
def test_every_family_says_who_gave_up_and_why(family, group, exception, message, attempts, kind):
    letter = read(samples.lying(samples.FAMILIES[family]))
    assert (letter.group, letter.exception, letter.message) == (group, exception, message)
    assert (letter.attempts, letter.kind) == (attempts, kind)
    assert letter.service == ("payments" if family == "choreo" else "")
    assert letter.trace == ("" if family in {"choreo", "kip-1191"} else samples.JAVA_TRACE)


def test_choreo_says_more():
    letter = read(samples.own(redrive_count=2))
    assert (letter.id, letter.fingerprint, letter.handler) == ("d0d0", "00aa11bb22cc33dd", "charge")
    assert (letter.first_failed_ms, letter.failed_ms) == (1_700_000_001_000, 1_700_000_002_000)
    assert (letter.parked, letter.redrives, letter.missing) == (True, 2, ())


def test_headers_of_retries_and_of_earlier_dead_letters_are_none_of_the_events():
    added = [("choreo.retry.handler", b"charge"), ("choreo.redrive.by", b"ada"), ("choreo.dlq.id", b"d0d0")]
    assert read(samples.lying([*samples.CHOREO, *added])).record.headers == samples.EVENT


@pytest.mark.parametrize("number", [b"-5", b"9" * 19, struct.pack(">q", -1), b"seven", b"\xff" * 4])
@pytest.mark.parametrize(("family", "place"), [("spring", "kafka_dlt-original-"), ("connect", "__connect.errors.")])
def test_where_a_place_makes_no_sense_the_dead_letter_stands_for_the_original(family, place, number):
    for part in ("partition", "offset"):
        headers = dict(samples.FAMILIES[family]) | {place + part: number}
        letter = read(samples.lying([*headers.items()]))
        assert letter.place == letter.at


def test_a_time_after_the_dead_letter_is_none_of_the_original():
    headers = dict(samples.SPRING) | {"kafka_dlt-original-timestamp": struct.pack(">q", 2**62)}
    assert read(samples.lying([*headers.items()])).record.timestamp == 1_700_000_000_000


def test_what_was_left_out_of_a_dead_letter_is_named():
    headers = [*samples.CHOREO, ("choreo.dlq.value-omitted", b"2000000 bytes; the original is at orders/3@77")]
    assert read(samples.lying(headers, value=None)).missing == ("value",)


def test_a_record_that_fails_in_two_dead_letter_topics_of_spring_has_come_from_the_first():
    twice = [*samples.SPRING, ("kafka_dlt-original-topic", b"orders.DLT"), ("kafka_dlt-exception-message", b"again")]
    letter = read(samples.lying(twice))
    assert (letter.place.topic, letter.message) == ("orders", "again")


def test_where_nobody_says_where_the_original_lies_the_dead_letter_stands_for_it():
    letter = read(samples.lying([("__streams.errors.exception", b"java.lang.Error")]))
    assert letter.place == letter.at


def test_ids_of_other_systems_are_those_of_the_place():
    one, other = (read(samples.lying(samples.SPRING, offset=offset)) for offset in (5, 6))
    assert one.id != other.id
    assert one.id == read(samples.lying(samples.SPRING, offset=5)).id


def test_equal_failures_share_a_fingerprint_whatever_the_line_numbers():
    moved = samples.JAVA_TRACE.replace(":42)", ":43)").replace("Lambda$1234/0x000000080", "Lambda$99/0x01")
    other = samples.JAVA_TRACE.replace("com.acme.Gateway.charge", "com.acme.Gateway.refund")
    prints = []
    for trace in (samples.JAVA_TRACE, moved, other):
        headers = [*samples.SPRING, ("kafka_dlt-exception-stacktrace", trace.encode())]
        prints.append(read(samples.lying(headers)).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_frames_are_those_of_the_root_cause():
    expected = ("com.acme.Gateway.charge", "com.acme.Payments.lambda$listen", "com.acme.Payments.accept")
    assert frames(samples.JAVA_TRACE) == expected
    assert frames("") == frames("no trace at all") == ()


def test_resolutions_are_told_apart():
    assert read(samples.resolution("d0d0", edited="1")) == Resolution(
        of="d0d0", kind="redriven", by="ada", why="fixed", at_ms=1_700_000_003_000, edited=True
    )


def test_a_record_without_a_reason_is_no_dead_letter():
    assert read(samples.lying([])) is None


HEADERS = st.sampled_from(
    sorted({name for family in samples.FAMILIES.values() for name, _ in family} | {"ce_id", "choreo.dlq.resolves"})
)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=9))), st.none() | st.binary(max_size=9))
def test_no_header_whatever_it_holds_gets_in_the_way(headers, value):
    found = read(Record("dlq.x", 0, 1, 0, b"\xff", value, headers))
    reasons = [
        name for name, _ in headers if name.startswith(("__dlq", "__connect", "__streams", "kafka_dlt", "choreo"))
    ]
    assert found or not reasons or reasons == ["choreo.dlq.resolves"] * len(reasons)

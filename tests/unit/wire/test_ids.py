from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from choreo.wire import derive_event_id, inbox_key, new_event_id

CAUSE = "0199e0a1-b2c3-7def-8123-456789abcdef"
NAMES = st.text(max_size=20)


def test_new_ids_are_uuid7_and_ordered():
    ids = [new_event_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert uuid.UUID(ids[0]).version == 7


@given(NAMES, NAMES, NAMES, st.integers(0, 1000), st.integers(0, 2**48 - 1))
def test_derived_ids_are_uuid8_and_always_the_same(cause, service, handler, ordinal, time_ms):
    derived = derive_event_id(cause, service, handler, ordinal, time_ms=time_ms)
    parsed = uuid.UUID(derived)
    assert str(parsed) == derived
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert parsed.int >> 80 == time_ms
    assert derive_event_id(cause, service, handler, ordinal, time_ms=time_ms) == derived


def test_a_fixed_example_never_changes_for_old_records_carry_it():
    assert derive_event_id(CAUSE, "payments", "charge", 0, time_ms=0) == "0199e0a1-b2c3-8e70-a763-efac4203c849"
    assert inbox_key("shop", CAUSE, "charge").hex() == "0199e0a1b2c33919eb9d0b78c6dfb9a2"


def test_derived_ids_inherit_the_cause_s_time_through_generations():
    child = derive_event_id(CAUSE, "a", "b", 0, time_ms=5)
    grandchild = derive_event_id(child, "a", "b", 0, time_ms=6)
    assert child[:13] == grandchild[:13] == CAUSE[:13]


def test_derived_ids_differ_in_each_of_their_parts():
    ids = {
        derive_event_id(CAUSE, "a", "b", 0, time_ms=5),
        derive_event_id(CAUSE, "a", "b", 1, time_ms=5),
        derive_event_id(CAUSE, "a", "c", 0, time_ms=5),
        derive_event_id(CAUSE, "c", "b", 0, time_ms=5),
        derive_event_id(CAUSE, "ab", "", 0, time_ms=5),
        derive_event_id(CAUSE[:-1] + "0", "a", "b", 0, time_ms=5),
    }
    assert len(ids) == 6


def test_ids_that_only_look_timed_are_hashed_whole():
    for odd in (CAUSE.upper()[:-1], str(uuid.UUID(int=2**127)), "z" * 36, "0 99e0a1-b2c3-7def-8123-456789abcdef"):
        assert derive_event_id(odd, "a", "b", 0, time_ms=1)[:13] == "00000000-0001"


@given(NAMES, NAMES, NAMES)
def test_inbox_keys_are_16_bytes_and_always_the_same(source, event_id, handler):
    key = inbox_key(source, event_id, handler)
    assert len(key) == 16
    assert inbox_key(source, event_id, handler) == key


def test_inbox_keys_begin_with_the_id_s_time():
    assert inbox_key("shop", CAUSE, "charge")[:6] == bytes.fromhex("0199e0a1b2c3")
    keys = [inbox_key("shop", new_event_id(), "charge")[:6] for _ in range(100)]
    assert keys == sorted(keys)


def test_inbox_keys_differ_in_each_of_their_parts():
    keys = {
        inbox_key("a", CAUSE, "b"),
        inbox_key("c", CAUSE, "b"),
        inbox_key("a", CAUSE, "d"),
        inbox_key("a", "x", "b"),
    }
    assert len(keys) == 4

"""Which outbox rows a new owner publishes."""

from hypothesis import given
from hypothesis import strategies as st

from choreo.store import records
from choreo.store.leftovers import left_for

PACKED = records.pack([])
PARTITIONS = st.sets(st.sampled_from("abcdef"), max_size=3)


def numbers(wanted, *rows):
    return [row.row_id for row in left_for(wanted, [(number, read, PACKED) for number, read in enumerate(rows)])]


def test_what_is_published_for_one_partition_takes_along_what_another_one_had_before():
    assert numbers("a", "b", "c", "ab", "b", "a", "c") == [0, 2, 4]
    assert numbers("a", "c", "bc", "ab", "b") == [0, 1, 2], "and what that one must not overtake"
    assert numbers("c", "c", "ab") == [0]
    assert numbers("d", "a", "b") == numbers("a") == numbers("a", "") == []


@given(PARTITIONS, st.lists(PARTITIONS, max_size=12))
def test_no_record_is_published_before_an_earlier_one_of_its_partition(wanted, rows):
    left = set(numbers(wanted, *rows))
    for number, read in enumerate(rows):
        assert number in left or wanted.isdisjoint(read)
        assert number in left or not any(read & rows[later] for later in left if later > number)


@given(PARTITIONS, st.lists(PARTITIONS, max_size=12))
def test_every_row_has_its_reason(wanted, rows):
    left = set(numbers(wanted, *rows))
    for number in left:
        assert rows[number] & wanted or any(rows[number] & rows[later] for later in left if later > number)

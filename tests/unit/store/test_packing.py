"""Many rows as few parameters: every part is found again, and nothing is written twice by one statement."""

from hypothesis import given
from hypothesis import strategies as st

from choreo.log.port import Record, TopicPartition
from choreo.store import NewNote, Note, Timer, packing

RECORD = Record("orders", 0, 1, 2, b"k", b"v", [])


def new(key: bytes, number: int, *, alone: bool = False) -> NewNote:
    return NewNote(key, Note(number, "done", b""), 0, alone)


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_every_content_is_found_where_it_is_said_to_be(contents):
    whole, places = packing.end_to_end(contents)
    assert [whole[first - 1 : first - 1 + length] for first, length in places] == contents
    assert whole == b"".join(contents)


def test_notes_are_written_by_key_and_those_of_one_key_in_their_own_order():
    notes = [new(b"b", 3), new(b"a", 9), new(b"b", 4), new(b"a", 10)]
    assert packing.of_keys(notes) == [notes[1], notes[3], notes[0], notes[2]]


def test_notes_of_one_kind_come_together_lower_numbers_first():
    notes = [new(b"b", 1), new(b"b", 0), new(b"a", 0), new(b"c", 0)._replace(keep_ms=5)]
    runs = [(0, "done", 0, 2), (0, "done", 5, 1), (1, "done", 0, 1)]
    assert packing.in_runs(notes) == ([notes[1], notes[2], notes[3], notes[0]], runs)


def test_a_first_note_takes_the_place_of_none():
    notes = [new(b"a", 0, alone=True), new(b"b", 1), new(b"c", 1, alone=True)]
    assert packing.alone(notes) == [(2, notes[2])]


def test_of_timers_that_are_set_twice_the_last_counts():
    timers = [Timer(b"b", TopicPartition("orders", n), n, "expire", RECORD) for n in range(3)]
    first = timers[0]._replace(timer_id=b"a")
    assert packing.latest([timers[0], first, timers[1], timers[2]]) == [first, timers[2]]

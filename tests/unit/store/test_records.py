"""Outbox rows: what goes in comes out, also from the rows of an earlier release."""

from hypothesis import given
from hypothesis import strategies as st

from choreo.log.port import NewRecord
from choreo.store import records as stored

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
contents = st.none() | st.binary(max_size=40)
records = st.builds(
    NewRecord,
    topic=names,
    key=contents,
    value=contents,
    headers=st.lists(st.tuples(names, st.binary(max_size=20)), max_size=4),
    timestamp=st.none() | st.integers(-1, 2**53),
    partition=st.none() | st.integers(0, 2**31 - 1),
)


@given(st.lists(records, max_size=8))
def test_records_come_back_as_they_were(packed):
    unpacked = stored.emitted(stored.pack(packed))
    assert unpacked == packed
    assert all(type(record) is NewRecord for record in unpacked)
    assert all(type(header) is tuple for record in unpacked for header in record.headers)


def test_rows_written_by_the_first_release_can_be_read():
    row = bytes.fromhex(
        "9196a66f7264657273c4026f31c403010203919 2a563655f6964c40165cf0000019abcdef012c0".replace(" ", "")
    )
    assert stored.emitted(row) == [
        NewRecord("orders", b"o1", b"\1\2\3", [("ce_id", b"e")], timestamp=0x19ABCDEF012, partition=None)
    ]

from hypothesis import given
from hypothesis import strategies as st

from choreo.log.sqlite.packing import pack, unpack

names = st.text(max_size=20)  # surrogates cannot be written as UTF-8, and are no header names


@given(st.lists(st.tuples(names, st.binary(max_size=300)), max_size=12))
def test_headers_come_back_as_they_were(headers: list[tuple[str, bytes]]) -> None:
    assert unpack(pack(headers)) == headers


def test_no_headers_take_no_room() -> None:
    assert pack([]) is None
    assert unpack(None) == []


def test_large_headers() -> None:
    headers = [("n" * 70_000, b"v" * 70_000), ("", b"")]
    assert unpack(pack(headers)) == headers

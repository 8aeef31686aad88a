"""Offsets as text ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.store import ranges


@given(st.sets(st.integers(0, 2**62) | st.integers(0, 50)))
def test_offsets_come_back(offsets):
    ascending = tuple(sorted(offsets))
    assert ranges.unpack(ranges.pack(ascending)) == ascending


@pytest.mark.parametrize(
    ("offsets", "text"),
    [((), ""), ((7,), "7"), ((7, 8, 9, 12), "7-9,12"), ((0, 1), "0-1"), ((0, 2, 4), "0,2,4")],
)
def test_the_format_is_durable(offsets, text):
    assert ranges.pack(offsets) == text
    assert ranges.unpack(text) == offsets


def test_a_long_run_stays_short():
    assert len(ranges.pack(range(1_000_000, 1_050_000))) < 20

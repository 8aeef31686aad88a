"""What is done above the watermark, as the metadata of a committed position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.errors import ConfigurationError
from choreo.log.memory import MemoryLog
from choreo.log.port import Position
from choreo.runtime.operations import Operations
from choreo.runtime.stats import Stats
from choreo.runtime.transactional import MAX_REACH, TransactionalStore, pack, unpack
from choreo.store.port import Progress


@given(
    st.integers(0, 2**40),
    st.sets(st.integers(1, MAX_REACH - 1), max_size=300),
    st.lists(st.integers(1, 2**24), max_size=250),
)
def test_every_progress_that_may_come_up_survives_and_fits(watermark, near, gaps):
    far, last = [], MAX_REACH - 1
    for gap in gaps:
        last += gap
        far.append(last)
    done = tuple(watermark + distance for distance in [*sorted(near), *far])
    progress = Progress(watermark, done, 0)
    metadata = pack(progress)
    assert unpack(Position(watermark, metadata)) == progress
    assert len(metadata) <= 4_096


def test_the_densest_and_the_widest_fit_in_what_kafka_keeps():
    dense = Progress(7, tuple(range(8, 7 + MAX_REACH)), 0)
    every_other = Progress(7, tuple(range(9, 7 + MAX_REACH, 2)), 0)
    wide = tuple(7 + MAX_REACH + n * 10_000_000 for n in range(250))
    for progress in (dense, every_other, every_other._replace(done=every_other.done + wide)):
        assert unpack(Position(7, pack(progress))) == progress
        assert len(pack(progress)) <= 4_096


def test_without_holes_there_is_nothing_to_note():
    assert pack(Progress(12, (), 0)) == ""
    assert unpack(Position(12)) == Progress(12, (), 0)


@pytest.mark.parametrize("metadata", ["", "set by hand", '{"by":"somebody"}', "donepart"])
def test_metadata_of_others_says_nothing(metadata):
    assert unpack(Position(12, metadata)) == Progress(12, (), 0)


async def test_a_handler_that_wants_a_database_is_told_why_there_is_none():
    async with MemoryLog() as log:
        store = TransactionalStore(log, Operations("s", Stats()))
        await store.open("clicks")
        with pytest.raises(ConfigurationError, match=r"'clicks' is transactional and has no ctx\.db"):
            await store.begin()

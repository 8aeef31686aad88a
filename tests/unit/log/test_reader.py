"""Reading to the end of a log that pauses, and whose last offsets nobody sees."""

from __future__ import annotations

import pytest

from choreo.errors import UnknownTopicError
from choreo.log.memory import MemoryLog
from choreo.log.port import Record, Topic, TopicPartition
from choreo.log.reader import Reader, partitions_of

AT = TopicPartition("orders", 0)


class Halting:
    """A log of one partition: each poll gives the records of the next list, and none when they are through."""

    def __init__(self, end: int, *polls: list[int]) -> None:
        self.end, self.polls = end, list(polls)

    def consumer(self, topics, *, listener):
        return self

    async def end_offsets(self, partitions):
        return {AT: self.end}

    async def poll(self, timeout):
        offsets = self.polls.pop(0) if self.polls else []
        return [Record(*AT, offset, 0, None, None, []) for offset in offsets]

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("end", "polls", "seen"),
    [
        (5, [[0, 1], [], [2, 3, 4]], [0, 1, 2, 3, 4]),
        (5, [[0, 1], [], [2], [], [3, 4]], [0, 1, 2, 3, 4]),
        (3, [[0, 1], [], [2]], [0, 1]),
        (9, [[0, 1], [], [], [8]], [0, 1]),
        (2, [[0, 1, 2]], [0, 1, 2]),
    ],
    ids=["a pause", "two pauses", "a marker at the end", "an aborted transaction at the end", "more than asked for"],
)
async def test_only_what_stays_silent_is_the_end(end, polls, seen):
    log = Halting(end, *polls)
    async with Reader(log, {AT: 0}) as reader:
        assert [record.offset async for record in reader.catch_up()] == seen
        log.polls = [[]]
        assert [record.offset async for record in reader.catch_up()] == []
        assert log.polls == [[]], "it knows that it is at the end"


async def test_topics_that_are_not_there_are_named():
    async with MemoryLog() as log:
        await log.create_topics([Topic(name="orders", partitions=1)])
        assert await partitions_of(log, ["orders"]) == [AT]
        with pytest.raises(UnknownTopicError, match="has no topics mail, nothing"):
            await partitions_of(log, ["orders", "nothing", "mail"])

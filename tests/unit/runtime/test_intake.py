"""Taking records in while partitions come and go."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from choreo.log.port import Record, TopicPartition
from choreo.runtime.intake import Intake
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Partition
from choreo.runtime.stats import Stats
from choreo.store.port import Progress

AT = TopicPartition("orders", 0)


class SlowDecoder:
    """Waits at each record, as for a schema that the registry does not give."""

    def __init__(self):
        self.asked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def job(self, _partition, _record):
        self.asked.set()
        await self.may_go_on.wait()


class Unit:
    """Of the unit of work what taking in needs."""

    def __init__(self):
        self.store = SimpleNamespace(seen=self._seen)

    async def _seen(self, _keys):
        return set()

    def finish(self, partition, offset):
        if not partition.gone:
            partition.tracker.finish(offset)


def records(*offsets):
    return [Record(AT.topic, AT.partition, offset, 0, b"k", b"v", []) for offset in offsets]


async def test_what_was_read_before_a_partition_went_is_not_taken_for_what_follows_its_return():
    decoder, before, after = SlowDecoder(), Partition(AT, Progress(5, (), 1)), Partition(AT, Progress(5, (), 2))
    owned = {AT: before}
    intake = Intake(
        decoder, unit=Unit(), put=Lanes().add, owned=owned, stats=Stats(), settled=decoder.asked.wait, has_inbox=True
    )
    taking_in = asyncio.create_task(intake.accept(records(5, 6, 7)))
    await decoder.asked.wait()
    before.abandon()
    owned[AT] = after
    decoder.may_go_on.set()
    await taking_in
    assert after.progress().watermark == 5
    await intake.accept(records(5))
    assert after.progress().watermark == 6

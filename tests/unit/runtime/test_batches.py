"""Gathering events into batches, and dividing batches: nothing lost, in order, no batch too large or too late."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from choreo.handler import Batch
from choreo.log.port import Record, TopicPartition
from choreo.runtime.batches.gathering import Gathering
from choreo.runtime.batches.job import BatchJob, Part, group_of, records_in, singles
from choreo.runtime.batches.waiting import Batches
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Failing, Job, Partition, Task
from choreo.runtime.retry import GiveUp
from choreo.store.port import Progress
from tests.integration.runtime_clock import TurnedClock
from tests.support import eventually

MAX_SIZE, MAX_AGE_MS = 4, 100
PARTITIONS = [Partition(TopicPartition("clicks", number), Progress(0, (), 1)) for number in range(2)]


def handler(per="partition", max_size=MAX_SIZE, max_age=MAX_AGE_MS / 1000, name="load"):
    return SimpleNamespace(name=name, service="lake", rule=Batch(max_size=max_size, max_age=max_age, per=per))


def job(number, *, partition=PARTITIONS[0], key=b"k", taker=None, event_id=None):
    taker = taker or handler()
    record = Record(partition.at.topic, partition.at.partition, number, 0, key, b"v", [])
    metadata = SimpleNamespace(event_id=event_id or f"e{number}", source="web")
    task = Task(taker, (event_id or f"e{number}").encode())
    return Job(partition, record, metadata, None, [task], group_of(partition.at, taker, record))


def numbers(jobs):
    return [job.offset for job in jobs]


class Gatherings(RuleBasedStateMachine):
    """Events come, time passes, workers call what stands in the lanes, partitions go."""

    def __init__(self):
        super().__init__()
        self.gathering = Gathering(MAX_SIZE, MAX_AGE_MS)
        self.now_ms, self.count = 1_000, 0
        self.came = {}  # lane -> jobs that came and are neither called nor dropped, in order
        self.since = {}  # job -> when it came
        self.standing = []  # batches that have left for their lanes, in order
        self.called = []

    @rule(number=st.integers(0, 1), key=st.sampled_from([b"a", b"b", None]))
    def come(self, number, key):
        self.count += 1
        made = job(self.count, partition=PARTITIONS[number], key=key, taker=handler("key"))
        self.came.setdefault(made.lane, []).append(made)
        self.since[made] = self.now_ms
        if not self.gathering.join(made.lane, made):
            full = self.gathering.add(made.lane, made, self.now_ms)
            if full is not None:
                assert full.unfinished == MAX_SIZE, "it goes before its time only because it is full"
                self.standing.append(full)

    @rule(ms=st.sampled_from([0, 1, MAX_AGE_MS - 1, MAX_AGE_MS, 10 * MAX_AGE_MS]))
    def time_passes(self, ms):
        self.now_ms += ms
        ready = self.gathering.due(self.now_ms)
        for batch in ready:
            assert self.since[batch.members[0]] + MAX_AGE_MS <= self.now_ms, "it goes before its time"
        self.standing += ready
        wait = self.gathering.next_ms(self.now_ms)
        assert (wait is None) == (self.gathering.gathered == 0)
        assert wait is None or 0 < wait <= MAX_AGE_MS

    @precondition(lambda self: self.came)
    @rule(data=st.data())
    def let_go(self, data):
        lane = data.draw(st.sampled_from(sorted(self.came, key=str)))
        if batch := self.gathering.release(lane):
            self.standing.append(batch)

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def call(self, data):
        lane = data.draw(st.sampled_from(sorted({batch.lane for batch in self.standing}, key=str)))
        batch = next(batch for batch in self.standing if batch.lane == lane)
        self.standing.remove(batch)
        self.gathering.close(batch)
        size = len(batch.members)
        assert batch.members == self.came[lane][:size], "the events of a lane are called in their order, each once"
        del self.came[lane][:size]
        self.called.append((batch, size))

    @rule(number=st.integers(0, 1))
    def partition_goes(self, number):
        going = PARTITIONS[number]
        dropped = self.gathering.drop(lambda batch: batch.partition is going)
        gone = [batch for batch in self.standing if batch.partition is going]
        self.standing = [batch for batch in self.standing if batch.partition is not going]
        dropped += singles(gone)
        expected = [made for lane, jobs in self.came.items() if lane[0] == going.at for made in jobs]
        assert sorted(numbers(dropped)) == sorted(numbers(expected))
        self.came = {lane: jobs for lane, jobs in self.came.items() if lane[0] != going.at}

    @invariant()
    def nothing_is_lost_too_large_or_too_late(self):
        standing = [made for batch in self.standing for made in batch.members]
        assert self.gathering.gathered == sum(map(len, self.came.values())) - len(standing)
        for batch in self.standing:
            assert batch.unfinished == len(batch.members) <= MAX_SIZE
        for batch, size in self.called:
            assert len(batch.members) == size, "what is called grows no more"

    def teardown(self):
        self.time_passes(MAX_AGE_MS)
        assert self.gathering.gathered == 0, "all of it has waited long enough"


TestGatherings = Gatherings.TestCase
TestGatherings.settings = settings(max_examples=80, stateful_step_count=40)


def test_a_clock_that_is_set_back_does_not_keep_a_batch():
    gathering = Gathering(10, 100)
    gathering.add("lane", job(1), 1_000_000)
    assert gathering.due(1_000_050) == []
    assert gathering.next_ms(500) == 0
    assert [batch.unfinished for batch in gathering.due(500)] == [1]


def test_a_batch_in_its_lane_grows_until_it_is_called():
    gathering = Gathering(3, 100)
    gathering.add("lane", job(1), 0)
    (batch,) = gathering.due(100)
    assert gathering.join("lane", job(2))
    gathering.close(batch)
    assert not gathering.join("lane", job(3)), "it is called, and the next one waits"
    assert numbers(batch.rest) == [1, 2]


# --- before the lanes -------------------------------------------------------------------------------------------------


class Woken(Batches):
    def __init__(self, *handlers, clock=None):
        self.lanes = Lanes(records_in)
        super().__init__(self.lanes, clock or TurnedClock(), handlers)
        self.wakes = 0
        self.wake = self.woken

    def woken(self):
        self.wakes += 1

    def come(self, *jobs):
        for each in jobs:
            self.add(each.lane, each)

    def taken(self):
        """The offsets of what stands in the lanes, lane by lane in turn."""
        found = []
        while (taken := self.lanes.take()) is not None:
            lane, made = taken
            if isinstance(made, BatchJob):
                self.close(made)
            found.append(numbers(singles([made])))
            self.lanes.done(lane)
        return found


def test_what_is_taken_one_by_one_passes_by():
    batches = Woken(handler())
    single = job(1, taker=SimpleNamespace(name="other", rule=None))
    batches.come(single, job(2))
    assert batches.lanes.take() == (single.lane, single)
    assert not batches.lanes.has_ready


async def test_ages_of_several_handlers_are_waited_for_by_one_task():
    clock, slow, quick = TurnedClock(), handler(name="slow", max_age=10.0), handler(name="quick", max_age=0.5)
    batches = Woken(slow, quick, clock=clock)
    running = asyncio.create_task(batches.run())
    batches.come(job(1, taker=slow))
    await eventually(lambda: clock._sleepers)
    batches.come(job(2, taker=quick))  # comes while the task waits, and is due long before
    clock.turn(0.5)
    await eventually(lambda: batches.lanes.has_ready)
    assert batches.taken() == [[2]]
    for _ in range(19):
        await eventually(lambda: clock._sleepers)
        assert batches.taken() == []
        clock.turn(0.5)
    await eventually(lambda: batches.lanes.has_ready)
    assert batches.taken() == [[1]]
    assert not batches._some.is_set(), "nothing waits, so it does not look any more"
    running.cancel()


def test_when_nothing_more_can_be_read_the_larger_batches_go_early():
    keyed = handler("key", max_size=100)
    batches = Woken(keyed)
    batches.come(*(job(n, key=b"hot", taker=keyed) for n in range(10)))
    batches.come(*(job(n, key=b"k%d" % n, taker=keyed) for n in range(10, 20)))
    batches.relieve(50)
    assert batches.taken() == [], "most of the load is elsewhere, and will make room"
    batches.relieve(30)
    assert batches.taken() == [list(range(10))]
    batches.relieve(12)
    assert sorted(batches.taken()) == [[n] for n in range(10, 20)], "all are alike"
    batches.relieve(12)
    assert batches.taken() == []


def test_a_copy_from_another_partition_comes_behind_the_batch_that_has_the_event():
    batches = Woken(handler())
    first, copy = job(1, event_id="same"), job(7, partition=PARTITIONS[1], event_id="same")
    batches.come(first)
    copy.recheck, copy.lane = True, first.lane  # as the intake does
    batches.come(copy)
    batches.come(job(2))
    assert batches.taken() == [[1, 2], [7]]


def test_a_record_that_may_kill_the_process_is_a_batch_of_its_own_at_once():
    batches, suspected = Woken(handler()), Partition(TopicPartition("clicks", 2), Progress(0, (), 1))
    suspected.alone = True
    batches.come(job(1, partition=suspected), job(2, partition=suspected))
    assert batches.taken() == [[1], [2]]


def test_dropped_batches_are_given_as_their_records():
    batches = Woken(handler(max_size=2))
    batches.come(*(job(n) for n in range(5)), *(job(n, partition=PARTITIONS[1]) for n in range(5, 8)))
    dropped = batches.drop(lambda made: made.partition is PARTITIONS[0])
    assert sorted(numbers(dropped)) == [0, 1, 2, 3, 4]
    batches.release_all()
    assert batches.taken() == [[5, 6], [7]]


def test_deferred_batches_count_with_their_records():
    batches = Woken(handler(max_size=3))
    batches.come(*(job(n) for n in range(3)))
    lane, _ = batches.lanes.take()
    batches.lanes.defer(lane)
    assert batches.lanes.deferred_jobs == 3
    batches.come(job(3))
    batches.release_all()
    batches.come(job(4))  # joins what stands in the lane
    assert batches.lanes.deferred_jobs == 5
    batches.lanes.resume(lane)
    assert batches.lanes.deferred_jobs == 0


# --- dividing ---------------------------------------------------------------------------------------------------------


class Ends:
    def __init__(self):
        self.finished = []

    def finish(self, partition, offset, tasks):
        self.finished.append(offset)


@given(size=st.integers(1, 40), bad=st.sets(st.integers(0, 39)), outage=st.integers(0, 30))
def test_halving_finds_the_bad_ones_and_keeps_the_order_of_the_good(size, bad, outage):
    """`outage`: after so many calls all that is left is taken together again."""
    batch, unit = BatchJob(job(0), "lane"), Ends()
    for number in range(1, size):
        batch.add(job(number))
    good, calls = [], 0
    while (part := batch.part()) is not None:
        calls += 1
        if calls == outage:
            before = numbers(batch.rest)
            batch.start_over()
            assert numbers(batch.rest) == before
            continue
        if not bad.intersection(numbers(part.members)):
            good += numbers(part.members)
            batch.parts.popleft()
            batch.end(unit, part.members)
        elif len(part.members) > 1:
            part.failures(0).calls += 1
            batch.split()
        else:
            batch.suspect(ValueError(), "handle", GiveUp("fatal"))
    assert good == [number for number in range(size) if number not in bad]
    assert numbers(batch.rest) == [number for number in range(size) if number in bad]
    batch.end(unit, batch.rest)
    assert sorted([*unit.finished, batch.offset]) == list(range(size)), "the worker finishes the last"
    assert batch.offset not in unit.finished


def test_halves_have_been_called_as_often_as_the_whole_and_count_for_themselves():
    whole = Part([job(n) for n in range(5)], Failing(3, 1_000))
    left, right = whole.halves()
    assert (numbers(left.members), numbers(right.members)) == ([0, 1], [2, 3, 4])
    left.failures(9_999).attempts += 1
    assert (right.failures(9_999).attempts, right.failures(9_999).first_ms) == (3, 1_000)


def test_copies_in_a_batch_come_at_its_end():
    batch = BatchJob(job(1), "lane")
    assert numbers(batch.part().members) == [1]
    batch.copies.append(job(2))
    assert numbers(batch.rest) == [1, 2]
    batch.parts.popleft()
    assert numbers(batch.part().members) == [2]
    batch.parts.popleft()
    assert batch.part() is None


@pytest.mark.parametrize(("per", "lanes"), [("partition", 2), ("key", 4)])
def test_a_group_is_a_partition_or_a_key(per, lanes):
    taker = handler(per)
    made = [job(0, partition=partition, key=key, taker=taker) for partition in PARTITIONS for key in (b"a", b"b")]
    assert len({each.lane for each in made}) == lanes

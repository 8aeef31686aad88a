"""The offset tracker against a model that knows everything, restarts included."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from choreo.runtime.offsets import OffsetTracker


class Tracker(RuleBasedStateMachine):
    """A partition with gaps is read in order and finished in any order, and now and then its owner changes.

    Only what a commit saved survives a change of owner: the watermark and what is done above it.
    """

    def __init__(self):
        super().__init__()
        self.records = []  # every offset the partition will ever have
        self.finished = set()  # by the present owner or saved by an earlier one
        self.open = []
        self.saved = (-1, ())
        self.saved_finished = set()

    @initialize(gaps=st.lists(st.integers(1, 4), min_size=1, max_size=60), first=st.integers(0, 5))
    def lay_out(self, gaps, first):
        offset = first
        for gap in gaps:
            self.records.append(offset)
            offset += gap
        self.own()

    def own(self):
        watermark, done = self.saved
        self.tracker = OffsetTracker(watermark, done)
        self.finished = set(self.saved_finished)
        self.open = []
        self.position = next((at for at, offset in enumerate(self.records) if offset >= watermark), len(self.records))

    @precondition(lambda self: self.position < len(self.records))
    @rule()
    def deliver(self):
        offset = self.records[self.position]
        self.position += 1
        wanted = self.tracker.deliver(offset)
        assert wanted == (offset not in self.finished), "handed out unless an owner has finished it"
        if wanted:
            self.open.append(offset)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data):
        offset = data.draw(st.sampled_from(self.open))
        self.open.remove(offset)
        self.finished.add(offset)
        self.tracker.finish(offset)

    @rule()
    def commit(self):
        self.saved = (self.tracker.watermark, self.tracker.done)
        self.saved_finished = set(self.finished)

    @rule()
    def change_owner(self):
        self.own()

    @precondition(lambda self: self.position)
    @rule()
    def redeliver(self):
        assert not self.tracker.deliver(self.records[self.position - 1]), "never handed out twice by one owner"

    @invariant()
    def the_watermark_is_safe(self):
        if not self.records:
            return
        watermark = self.tracker.watermark
        assert all(offset in self.finished for offset in self.records if offset < watermark), "nothing skipped"
        read = self.records[: self.position]
        assert all(offset < watermark or offset in self.tracker.done for offset in self.finished & set(read))
        assert all(offset >= watermark for offset in self.tracker.done)
        assert list(self.tracker.done) == sorted(set(self.tracker.done))
        assert set(self.tracker.done) <= self.finished

    @invariant()
    def counts_agree(self):
        if self.records:
            assert self.tracker.open == len(self.open)
            above = [offset for offset in self.records[: self.position] if offset >= self.tracker.watermark]
            assert self.tracker.reach >= len(above)

    def teardown(self):
        if not self.records:
            return
        while self.position < len(self.records):
            self.deliver()
        for offset in list(self.open):
            self.open.remove(offset)
            self.finished.add(offset)
            self.tracker.finish(offset)
        assert self.tracker.watermark == self.records[-1] + 1
        assert self.tracker.done == ()
        assert (self.tracker.open, self.tracker.reach) == (0, 0)


TestTracker = Tracker.TestCase
TestTracker.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_new_partition_has_no_watermark_until_its_first_record():
    tracker = OffsetTracker()
    assert tracker.watermark == -1
    assert tracker.deliver(7)
    assert tracker.watermark == 7
    tracker.finish(7)
    assert tracker.watermark == 8


def test_a_hole_holds_the_watermark_and_the_rest_is_remembered():
    tracker = OffsetTracker(10)
    for offset in (10, 11, 13):
        assert tracker.deliver(offset)
    tracker.finish(13)
    tracker.finish(11)
    assert (tracker.watermark, tracker.done) == (10, (11, 13))
    tracker.finish(10)
    assert (tracker.watermark, tracker.done) == (14, ())

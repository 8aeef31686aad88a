"""Lanes: order per key, one running job per key, turns for everybody."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from choreo.runtime.lanes import Lanes

KEYS = st.sampled_from("abcde")


class Turns(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lanes = Lanes()
        self.waiting = {}  # key -> jobs in order
        self.running = {}  # key -> job
        self.deferred = {}  # key -> job, the first of those that wait
        self.ids = 0

    @rule(key=KEYS)
    def add(self, key):
        self.ids += 1
        self.lanes.add(key, (key, self.ids))
        self.waiting.setdefault(key, []).append((key, self.ids))

    def free(self):
        return {key for key, jobs in self.waiting.items() if jobs and key not in {*self.running, *self.deferred}}

    @rule()
    def take(self):
        taken = self.lanes.take()
        free = self.free()
        if taken is None:
            assert not free, "a job that could run is found"
            return
        key, job = taken
        assert key in free, "one running job per key"
        assert job == self.waiting[key].pop(0), "in the order they came"
        self.running[key] = job

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data):
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        self.lanes.done(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def defer(self, data):
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.deferred[key] = self.running.pop(key)
        self.waiting[key].insert(0, self.deferred[key])
        self.lanes.defer(key)

    @rule(key=KEYS)
    def resume(self, key):
        self.lanes.resume(key)
        self.deferred.pop(key, None)

    @rule(parity=st.integers(0, 1))
    def drop(self, parity):
        dropped = self.lanes.drop(lambda job: job[1] % 2 == parity)
        expected = [job for jobs in self.waiting.values() for job in jobs if job[1] % 2 == parity]
        assert sorted(dropped) == sorted(expected), "those that wait, never one that runs"
        for key, jobs in self.waiting.items():
            self.waiting[key] = [job for job in jobs if job[1] % 2 != parity]
        self.deferred = {key: job for key, job in self.deferred.items() if job[1] % 2 != parity}

    @invariant()
    def has_ready_tells_the_truth(self):
        free = self.free()
        assert self.lanes.has_ready == bool(free)
        assert self.lanes.is_quiet == (not free and not self.running)
        assert self.lanes.deferred_jobs == sum(len(self.waiting[key]) for key in self.deferred)

    def teardown(self):
        for key in self.deferred:
            self.lanes.resume(key)
        for key in list(self.running):
            del self.running[key]
            self.lanes.done(key)
        while (taken := self.lanes.take()) is not None:
            key, job = taken
            assert job == self.waiting[key].pop(0)
            self.lanes.done(key)
        assert not any(self.waiting.values()), "nothing is left behind"
        assert not self.lanes._lanes, "an empty lane is forgotten"


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=60, stateful_step_count=40)


@given(hot=st.integers(1, 200), others=st.lists(st.sampled_from("bcdefg"), min_size=1, max_size=6, unique=True))
def test_a_hot_key_cannot_starve_the_others(hot, others):
    lanes = Lanes()
    for job in range(hot):
        lanes.add("a", job)
    for key in others:
        lanes.add(key, key)
    served = []
    while (taken := lanes.take()) is not None:
        served.append(taken[0])
        lanes.done(taken[0])
    assert set(served[: len(others) + 1]) == {"a", *others}, "everybody is served within one round"

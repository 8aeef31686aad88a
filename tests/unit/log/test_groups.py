from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from choreo.log.groups import RELEASE_TIMEOUT, SESSION_TIMEOUT, Group, assign
from choreo.log.port import TopicPartition


def places(*counts: int) -> list[TopicPartition]:
    return [TopicPartition("abc"[topic], n) for topic, count in enumerate(counts) for n in range(count)]


def test_a_free_partition_goes_to_who_has_least() -> None:
    assert assign({1: "a", 2: "a"}, places(3), {places(3)[0]: 1}) == dict(zip(places(3), [1, 2, 1], strict=True))


def test_only_what_must_move_moves() -> None:
    owners = dict.fromkeys(places(4), 1)
    wanted = assign({1: "a", 2: "a"}, places(4), owners)
    assert sum(owners[place] != member for place, member in wanted.items()) == 2


def test_topics_go_to_their_subscribers_only() -> None:
    wanted = assign({1: "a", 2: "ab"}, places(2, 2, 2), {})
    assert {place for place, member in wanted.items() if member == 1} <= set(places(2))
    assert set(wanted) == set(places(2, 2))


@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 12), st.data())
def test_equal_subscriptions_are_shared_evenly(members: int, a: int, b: int, data: st.DataObject) -> None:
    ids = list(range(1, members + 1))
    owners = {place: data.draw(st.sampled_from([*ids, 99])) for place in places(a, b)}
    wanted = assign(dict.fromkeys(ids, "ab"), places(a, b), owners)
    load = Counter(dict.fromkeys(ids, 0))
    load.update(wanted.values())
    assert set(wanted) == set(places(a, b))
    assert max(load.values()) - min(load.values()) <= 1
    assert assign(dict.fromkeys(ids, "ab"), places(a, b), wanted) == wanted


def test_a_partition_is_claimed_only_once_released() -> None:
    group = Group()
    group.join(1, "a", 0)
    assert len(group.settle(1, places(4), 0).owned) == 4
    group.join(2, "a", 0)
    assert group.settle(2, places(4), 0).owned == {}
    revoke = group.settle(1, places(4), 0).revoke
    assert len(revoke) == 2
    group.release(1, revoke)
    assert set(group.settle(2, places(4), 0).owned) == set(revoke)


def test_what_is_not_released_in_time_is_taken() -> None:
    group = Group()
    group.join(1, "a", 0)
    group.settle(1, places(2), 0)
    group.join(2, "a", 0)
    (late,) = group.settle(1, places(2), 10).revoke
    assert group.settle(2, places(2), 9 + RELEASE_TIMEOUT).owned == {}
    assert set(group.settle(2, places(2), 10 + RELEASE_TIMEOUT).owned) == {late}
    assert late not in group.settle(1, places(2), 10 + RELEASE_TIMEOUT).owned


def test_the_dead_are_removed_and_their_claims_too() -> None:
    group = Group()
    group.join(1, "a", 1_000)
    group.join(2, "a", 1_000 + SESSION_TIMEOUT)
    group.settle(1, places(2), 1_000)
    group.expel(1_001 + SESSION_TIMEOUT)
    assert set(group.members) == {2}
    assert len(group.settle(2, places(2), 0).owned) == 2


def test_heartbeats_from_before_a_restart_of_the_machine_do_not_count() -> None:
    group = Group()
    group.join(1, "a", 5_000_000)
    group.expel(1_000)
    assert group.members == {}


def test_a_claim_got_back_is_another_claim() -> None:
    group = Group()
    group.join(1, "a", 0)
    (place,) = places(1)
    before = group.settle(1, [place], 0).owned[place]
    group.release(1, [place])
    group.join(2, "a", 0)
    group.settle(2, [place], 0)
    group.leave(2)
    after = group.settle(1, [place], 0).owned[place]
    assert group.owns(1, place, after)
    assert not group.owns(1, place, before)
    assert not group.owns(2, place, after)


class Rebalancing(RuleBasedStateMachine):
    """Members join, leave, die, look and release in any order: nobody owns what another one owns, and it all settles."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group()
        self.known: dict[int, dict[TopicPartition, int]] = {}  # what each living member believes to own
        self.now = 0
        self.next_id = 1

    @rule()
    def join(self) -> None:
        self.group.join(self.next_id, "ab", self.now)
        self.known[self.next_id] = {}
        self.next_id += 1

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.known)))
        step = self.group.settle(member, places(5, 3), self.now)
        self.known[member] = step.owned
        if data.draw(st.booleans()):
            self.group.release(member, step.revoke)
            self.known[member] = {p: g for p, g in step.owned.items() if p not in step.revoke}

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.known)))
        self.group.leave(member)
        del self.known[member]

    @invariant()
    def nobody_believes_to_own_what_another_may_commit(self) -> None:
        for member, owned in self.known.items():
            for place, generation in owned.items():
                assert self.group.owns(member, place, generation)
        assert all(claim.member in self.group.members for claim in self.group.claims.values())

    def teardown(self) -> None:
        for _ in range(4):
            for member in self.known:
                self.group.release(member, self.group.settle(member, places(5, 3), self.now).revoke)
        load = Counter(claim.member for claim in self.group.claims.values())
        if self.known:
            assert set(self.group.claims) == set(places(5, 3))
            assert max(load.values()) - min(load[member] for member in self.known) <= 1


TestRebalancing = Rebalancing.TestCase
TestRebalancing.settings = settings(max_examples=60, stateful_step_count=30)

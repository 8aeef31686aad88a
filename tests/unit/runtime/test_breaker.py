"""The circuit breaker's state: what opens it, and what closes it."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from choreo.runtime.breaker import Breaker, Breakers
from choreo.runtime.lanes import Lanes

calls = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30), st.booleans()), max_size=120)


@given(calls)
def test_it_opens_only_when_most_of_the_last_records_fail_and_never_for_few_keys(history):
    breaker = Breaker()
    for number, (event, key, well) in enumerate(history):
        opened = breaker.note(str(event), None if well else key)
        assert opened == breaker.is_open
        assert breaker.is_calm <= (not opened)
        if opened:
            last = {str(event): None if well else key for event, key, well in history[: number + 1]}
            failing = {key for key in last.values() if key is not None}
            assert number + 1 >= 20
            assert len(failing) >= 5
            assert not well
            return


def test_an_outage_opens_it_after_twenty_calls_whether_of_many_records_or_of_a_few_again_and_again():
    many, few = Breaker(), Breaker()
    assert [many.note(f"e{n}", n) for n in range(20)] == [False] * 19 + [True]
    assert [few.note(f"e{n % 5}", n % 5) for n in range(20)] == [False] * 19 + [True]


def test_a_call_that_ends_well_never_opens_it_for_nobody_would_close_it():
    """The twentieth call, after nineteen that failed, ends well: it was open then, and its lanes waited for ever."""
    probes = []
    breakers = Breakers(Lanes(), None, probes.append, [].append)
    handler = SimpleNamespace(name="pay", service="payments")

    def job(number):
        about = SimpleNamespace(event_id=f"e{number}")
        return SimpleNamespace(metadata=about, record=SimpleNamespace(key=b"%d" % number), lane=number, failing=None)

    for number in range(19):
        assert not breakers.failed(job(number), handler, again=False)
    breakers.succeeded(job(19), handler)
    assert breakers.may_run(job(20), handler)
    assert probes == []
    assert breakers.failed(job(20), handler, again=False)
    assert not breakers.may_run(job(21), handler)
    (probe,) = probes
    probe.close()


def test_one_poison_key_or_a_few_bad_records_among_good_ones_leave_it_closed():
    poison, few = Breaker(), Breaker()
    assert not any(poison.note(f"e{n}", "poison") for n in range(200))
    assert not any(few.note(f"e{n}", f"k{n}" if n % 2 else None) for n in range(200))
    assert not few.is_calm
    for n in range(50):
        few.note(f"good{n}", None)
    assert few.is_calm, "what lies long behind is forgotten"


def test_probes_come_ever_less_often_while_all_fail_and_a_few_good_ones_close_it():
    breaker = Breaker()
    breaker.is_open = True
    breaker.hold("lane", failed=True)
    delays = []
    for _ in range(7):
        delays.append(breaker.delay)
        breaker.probed(well=False)
        assert breaker.next_round()
    assert delays == [1, 2, 4, 8, 16, 30, 30]
    breaker.probed(well=False)
    breaker.probed(well=True)
    assert not breaker.next_round(), "one of them ended well"
    assert breaker.delay == 1
    for _ in range(2):
        assert breaker.is_open
        breaker.probed(well=False)
        breaker.probed(well=True)
    assert not breaker.is_open


def test_a_round_in_which_no_call_ended_changes_nothing():
    breaker = Breaker()
    assert not breaker.next_round()
    assert breaker.delay == 1


def test_records_that_never_failed_go_before_those_that_have_unless_they_failed_too():
    breaker = Breaker()
    for lane, failed in (("bad", True), ("new", False), ("worse", True), ("bad", False)):
        breaker.hold(lane, failed=failed)
    assert breaker.waiting == 3
    assert [breaker.release() for _ in range(4)] == ["new", "bad", "worse", None]
    breaker.probed(well=False)
    assert breaker.next_round()
    for lane, failed in (("new", True), ("newer", False)):
        breaker.hold(lane, failed=failed)
    assert [breaker.release() for _ in range(2)] == ["new", "newer"]


def test_a_good_probe_closes_it_when_nobody_waits():
    breaker = Breaker()
    breaker.is_open = True
    breaker.probed(well=True)
    assert not breaker.is_open

"""Events and their emitters, retries and dead letters, joins, deadlines and compensations, each by example."""

from __future__ import annotations

from itertools import permutations

import pytest

from choreo import Choreography, Event, Failure, Service
from choreo.dlq.letters import Place
from choreo.wire.ids import derive_event_id
from tests.unit.saga.telling import START, Telling, duty, statuses


class Began(Event, topic="begun", key="order"):
    order: str


class Went(Event, topic="went", key="order"):
    order: str


class Came(Event, topic="came", key="order"):
    order: str


class Broke(Failure, topic="broke", key="order"):
    order: str


class Part(Event, topic="parts", key="order"):
    order: str
    box: str


class Packed(Event, topic="packed", key="order", ends="completed"):
    order: str


def graph_of(*services):
    return Choreography.of(services).graph


@pytest.fixture
def told():
    return Telling()


# --- events -----------------------------------------------------------------------------------------------------------


def test_causes_come_before_effects_whatever_their_places(told):
    begun = told.event("TripRequested", place=Place("z", 0, 9))
    asked = told.event("ApprovalAsked", "approvals.ask", begun, place=Place("b", 0, 1))
    told.event("Reminded", "approvals.remind", asked, place=Place("a", 0, 0))
    told.event("FlightBooked", "flights.book", begun, place=Place("a", 0, 5))
    assert [event.type for event in told.fold().events] == [
        "TripRequested",
        "FlightBooked",
        "ApprovalAsked",
        "Reminded",
    ]


def test_causes_that_go_round_in_a_circle_lose_no_event_and_no_order(told):
    one = told.event("ClaimFiled", event_id="one")
    two = told.event("ClaimAssessed", cause=one, event_id="two", source="claims")
    told.event("BankChecked", cause=two, event_id="three", source="banks")
    told.sightings[0] = one._replace(causation_id="two")
    found = set()
    for order in permutations(told.sightings):
        told.sightings = list(order)
        found.add(tuple(event.id for event in told.fold().events))
    assert len(found) == 1
    assert sorted(found.pop()) == ["one", "three", "two"]


def test_copies_of_an_event_are_one_with_several_places(told):
    begun = told.event("ClaimFiled", read=())
    copy = told.event("ClaimFiled", read=("claims",))
    saga = told.fold()
    assert [event.places for event in saga.events] == [(begun.place, copy.place)]
    assert duty(saga, "claims.assess").status == "done"
    assert duty(saga, "banks.check").status == "pending"


def test_copies_that_tell_of_different_events_are_told(told):
    told.event("ClaimFiled")
    told.event("ReviewWritten", source="other")
    assert told.fold().events[0].oddity == "another record of its id is a ReviewWritten of other"


def two_emitters():
    service = Service("s")

    @service.on(Began, ordered=False)
    async def one(event: Began) -> Went | None: ...

    @service.on(Began, ordered=False)
    async def two(event: Began) -> Went | None: ...

    return graph_of(service)


def test_an_id_tells_which_of_two_handlers_emitted_an_event():
    told = Telling(two_emitters())
    begun = told.event("Began")
    told.event("Went", "s.one", begun)
    told.event("Went", "s.two", begun)
    told.event("Went", cause=begun, event_id="strange", source="s")
    emitters = {event.id: (event.handler, event.oddity) for event in told.fold().events}
    assert emitters[derive_event_id(begun.event_id, "s", "two", 0, time_ms=0)] == ("s.two", "")
    assert emitters[derive_event_id(begun.event_id, "s", "one", 0, time_ms=0)] == ("s.one", "")
    assert emitters["strange"] == ("s.one", "emitted by s.one or s.two: its id does not tell which")


def test_a_cause_without_a_time_in_its_id_is_no_hindrance():
    told = Telling(two_emitters(), saga="order-7")
    begun = told.event("Began", written=5_000)
    event_id = derive_event_id("order-7", "s", "two", 0, time_ms=START + 5_000)
    told.event("Went", cause=begun, event_id=event_id, source="s")
    assert told.fold().events[1].handler == "s.two"


# --- retries and dead letters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "status"), [(False, "retrying"), (True, "done")], ids=["not read yet", "read and not failed again"]
)
def test_a_retry_is_over_when_its_group_has_read_it(told, read, status):
    told.again("claims.assess", told.event("ClaimFiled"), attempt=1, due=5_000, read=read)
    found = duty(told.fold(), "claims.assess")
    assert (found.status, found.attempts) == (status, 1)


def test_a_redriven_dead_letter_is_open_no_longer(told):
    begun = told.event("ClaimFiled")
    letter = told.letter("claims.assess", begun)
    assert duty(told.fold(), "claims.assess").status == "dead"
    told.settle(letter, "redriven")
    found = duty(told.fold(), "claims.assess")
    assert (found.status, found.due_ms, found.redrives, found.letter) == ("retrying", None, 1, letter)
    told.again("claims.assess", begun, attempt=0, redrives=1, read=True)
    assert duty(told.fold(), "claims.assess").status == "done"
    told.letter("claims.assess", begun, letter_id="second", redrives=1, at=9_000)
    found = duty(told.fold(), "claims.assess")
    assert (found.status, found.letter, found.redrives) == ("dead", "second", 1)
    told.settle("second", "discarded")
    told.again("claims.assess", begun, attempt=0, redrives=2, discard=True, read=True)
    assert duty(told.fold(), "claims.assess").status == "discarded"


def test_a_dead_letter_that_failed_anew_with_its_old_id_is_open_again(told):
    begun = told.event("ClaimFiled")
    told.settle(told.letter("claims.assess", begun, at=1_000), "redriven", failed=1_000)
    told.again("claims.assess", begun, attempt=0, redrives=1, read=True)
    told.letter("claims.assess", begun, at=50_000)
    saga = told.fold()
    assert duty(saga, "claims.assess").status in {"dead", "done"}
    assert saga.updated_ms == START + 50_000


def test_what_waits_behind_a_dead_letter_of_its_key_is_not_done():
    service = Service("s")

    @service.on(Began)
    async def count(event: Began) -> None: ...

    told = Telling(graph_of(service))
    first = told.event("Began", place=Place("begun", 0, 1))
    told.event("Began", event_id="second", place=Place("begun", 0, 2))
    told.event("Began", event_id="other key", key="j", place=Place("begun", 0, 3))
    told.committed["s", first.place.of] = 4
    told.letter("s.count", first, parked=True)
    saga = told.fold()
    assert statuses(saga, "s.count") == ["dead", "pending", "done"]
    assert "s.count holds Began back: an earlier event of key k is not handled yet" in [
        each.because for each in saga.expected
    ]


# --- joins ------------------------------------------------------------------------------------------------------------


def test_a_join_gathers_until_it_has_enough(told):
    begun = told.event("TripRequested")
    told.event("CarOffered", "cars.offer", begun)
    told.again("cars.offer", begun)
    assert statuses(told.fold(), "cars.pick") == ["gathering"]
    second = told.event("CarOffered", "cars.offer", begun, ordinal=1)
    told.event("CarChosen", "cars.pick", second)
    assert statuses(told.fold(), "cars.pick") == ["done", "done"]


def test_some_of_several_events_suffice(told):
    begun = told.event("TripRequested")
    told.event("GuideFound", "extras.guide", begun)
    told.event("VisaChecked", "extras.visa", begun)
    visa = told.sightings[-1]
    told.event("ExtrasReady", "extras.pack", visa)
    assert statuses(told.fold(), "extras.pack") == ["done", "done"]


def test_a_second_event_of_a_kind_is_not_needed(told):
    begun = told.event("ClaimFiled")
    told.event("ClaimAssessed", "claims.assess", begun)
    told.event("ClaimAssessed", "claims.assess", begun, ordinal=1)
    assert sorted(statuses(told.fold(), "claims.pay")) == ["gathering", "unneeded"]


def test_an_event_of_unless_stops_a_join(told):
    begun = told.event("ClaimFiled")
    told.event("BankChecked", "banks.check", begun)
    told.event("ClaimRejected", "claims.assess", begun)
    assert statuses(told.fold(), "claims.pay") == ["stopped"]


def joins_by(field):
    service = Service("s")

    @service.on(Began, ordered=False)
    async def cut(began: Began) -> list[Part]: ...

    @service.join(Part, by=field, count=2)
    async def pack(parts: list[Part]) -> Packed: ...

    return graph_of(service)


def test_a_join_by_the_key_keeps_keys_apart():
    told = Telling(joins_by("order"))
    begun = told.event("Began")
    told.event("Part", "s.cut", begun, key="a")
    told.event("Part", "s.cut", begun, ordinal=1, key="b")
    saga = told.fold()
    assert (saga.state, statuses(saga, "s.pack")) == ("waiting", ["gathering", "gathering"])
    assert "s.pack has Part and waits for 1 more of Part with key a, maybe of another saga" in saga.reason


def test_a_join_by_what_is_not_the_key_is_not_guessed_at():
    told = Telling(joins_by("box"))
    told.event("Part", "s.cut", told.event("Began"))
    saga = told.fold()
    assert statuses(saga, "s.pack") == ["done"]
    assert saga.state == "stuck"


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "status"), [(600_000, "stopped"), (600_001, "armed")])
def test_only_what_was_produced_in_time_stops_a_deadline(told, at, status):
    told.event("TripRequested")
    told.event("TripFailed", event_id="f", at=at, read=())
    found = duty(told.fold(), "desk.expire")
    assert (found.status, found.due_ms) == (status, START + 600_000 if status == "armed" else None)


def test_a_later_event_of_the_kind_that_sets_a_timer_may_stop_the_earlier_one():
    service = Service("s")

    @service.deadline(Began, within="10s", unless=(Began,))
    async def idle(began: Began) -> Went: ...

    told = Telling(graph_of(service))
    told.event("Began", at=0)
    told.event("Began", at=9_000, event_id="second")
    told.event("Began", at=20_000, event_id="third")
    found = {each.event: (each.status, each.due_ms) for each in told.fold(now=12_000).duties}
    assert found == {
        told.saga: ("stopped", None),
        "second": ("armed", START + 19_000),
        "third": ("armed", START + 30_000),
    }


def test_reminders_come_one_after_another(told):
    asked = told.event("ApprovalAsked", "approvals.ask", told.event("TripRequested"))
    assert duty(told.fold(), "approvals.remind").due_ms == START + 100_000
    told.event("Reminded", "approvals.remind", asked, at=100_600)
    assert duty(told.fold(now=101_000), "approvals.remind").due_ms == START + 200_000
    told.event("Reminded", "approvals.remind", asked, scope="#2", at=200_600)
    told.event("Reminded", "approvals.remind", asked, scope="#3", at=300_600)
    assert duty(told.fold(now=301_000), "approvals.remind").status == "done"
    assert len(duty(told.fold(now=301_000), "approvals.remind").emitted) == 3


def test_a_deadline_that_may_emit_nothing_counts_as_called_when_its_time_is_over(told):
    told.event("ApprovalAsked", "approvals.ask", told.event("TripRequested"))
    assert duty(told.fold(now=205_499), "approvals.escalate").status == "armed"
    assert duty(told.fold(now=205_500), "approvals.escalate").status == "done"


def test_a_dead_letter_of_one_reminder_does_not_hide_the_next(told):
    asked = told.event("ApprovalAsked", "approvals.ask", told.event("TripRequested"))
    letter = told.letter("approvals.remind", asked, first=100_600, at=100_700)
    assert duty(told.fold(now=101_000), "approvals.remind").status == "dead"
    told.settle(letter, "discarded", at=101_000)
    found = duty(told.fold(now=102_000), "approvals.remind")
    assert (found.status, found.due_ms) == ("armed", START + 200_000)


# --- compensations ----------------------------------------------------------------------------------------------------


def test_all_that_one_run_of_a_step_did_is_undone_at_once(told):
    begun = told.event("TripRequested")
    booked = [told.event("RoomBooked", "hotels.rooms", begun, ordinal=number) for number in range(3)]
    refused = told.event("HotelRefused", "hotels.choose", begun)
    told.event("RoomsCancelled", "hotels.free", refused, compensates=booked[0])
    saga = told.fold()
    assert [line.status for line in saga.ledger] == ["done"] * 3
    assert duty(saga, "hotels.free").status == "done"


def test_a_silent_compensation_is_done_when_its_group_has_read_the_failure(told):
    begun = told.event("TripRequested")
    told.event("HotelChosen", "hotels.choose", begun)
    failed = told.event("TripFailed", "desk.expire", begun, read=("flights",))
    assert [line.status for line in told.fold().ledger] == ["owed"]
    told.committed["hotels", failed.place.of] = failed.place.offset + 1
    assert [line.status for line in told.fold().ledger] == ["done"]
    told.letter("hotels.forget", failed)
    assert [line.status for line in told.fold().ledger] == ["owed"]


def test_a_second_failure_changes_nothing(told):
    begun = told.event("TripRequested")
    booked = told.event("RoomBooked", "hotels.rooms", begun)
    refused = told.event("HotelRefused", "hotels.choose", begun)
    failed = told.event("TripFailed", "desk.give_up", refused)
    told.event("RoomsCancelled", "hotels.free", failed, compensates=booked)  # it was read first
    saga = told.fold()
    assert (saga.ledger[0].status, saga.ledger[0].failure) == ("done", failed.event_id)
    assert duty(saga, "hotels.free", "HotelRefused").status == "unneeded"


def test_a_step_whose_saga_had_failed_is_not_started(told):
    begun = told.event("TripRequested")
    told.event("TripFailed", "desk.expire", begun)
    saga = told.fold()
    assert duty(saga, "flights.book").status == "unneeded"
    assert saga.ledger == ()


def test_an_effect_is_kept_while_nothing_has_failed(told):
    told.event("FlightBooked", "flights.book", told.event("TripRequested"))
    (line,) = told.fold().ledger
    assert (line.status, line.compensation, line.failure) == ("kept", "flights.cancel", None)

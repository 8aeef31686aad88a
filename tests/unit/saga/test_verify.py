"""The laws over one saga: each is seen to be broken, and the sagas of plays and worlds break none of those that the runtime keeps."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from choreo.dlq.letters import Place
from choreo.saga.fold import fold
from choreo.saga.verify import LAWS, verify
from tests.tracker.comparing import sightings
from tests.tracker.laying import World
from tests.tracker.play import GRAPH
from tests.tracker.truth import truths
from tests.unit.saga.telling import Telling


@pytest.fixture
def told():
    return Telling()


def broken(told):
    return [(each.code, each.words) for each in verify(told.fold())]


def test_an_undeclared_emission(told):
    told.event("HotelChosen", "cars.offer", told.event("TripRequested"))
    ((code, words),) = broken(told)
    assert code == "V01"
    assert words.startswith("HotelChosen of cars is not declared: undeclared emission: no handler of cars")


def test_two_outcomes(told):
    begun = told.event("TripRequested")
    told.event("TripFailed", "desk.expire", begun)
    told.event("TripConfirmed", event_id="by hand", at=5)
    (violation,) = verify(told.fold())
    assert (violation.code, violation.event) == ("V02", "by hand")
    assert violation.words == "it ended as completed (TripConfirmed of portal) and failed (TripFailed of desk.expire)"


def failed_trip(told):
    begun = told.event("TripRequested")
    return told.event("FlightBooked", "flights.book", begun), told.event("TripFailed", "desk.expire", begun)


def test_an_undoing_without_a_failure(told):
    begun = told.event("TripRequested")
    booked = told.event("FlightBooked", "flights.book", begun)
    told.event("FlightCancelled", "flights.cancel", begun, compensates=booked)
    assert (
        "V03",
        f"FlightCancelled undoes event {booked.event_id}, and its cause TripRequested is no failure",
    ) in broken(told)


def test_an_effect_that_stays_in_a_failed_saga(told):
    failed_trip(told)
    assert broken(told) == [
        ("V04", "FlightBooked of flights.book stays in a failed saga: flights.cancel has not undone it")
    ]


def test_what_nobody_would_undo(told):
    begun = told.event("TripRequested")
    told.event("VisaChecked", "extras.visa", begun)
    told.event("TripFailed", "desk.expire", begun)
    assert broken(told) == [
        ("V04", "VisaChecked of extras.visa stays in a failed saga: no compensation is declared for it")
    ]


def test_an_effect_that_is_undone_twice(told):
    booked, failed = failed_trip(told)
    second = told.event("TripFailed", event_id="second failure")
    told.event("FlightCancelled", "flights.cancel", failed, scope=f"/{booked.event_id}", compensates=booked)
    told.event("FlightCancelled", "flights.cancel", second, scope=f"/{booked.event_id}", compensates=booked)
    assert broken(told) == [
        ("V05", f"FlightCancelled undoes event {booked.event_id}, which flights.cancel had undone before")
    ]


def test_several_events_of_one_undoing_are_one(told):
    booked, failed = failed_trip(told)
    for number in range(2):
        told.event(
            "FlightCancelled", "flights.cancel", failed, scope=f"/{booked.event_id}", ordinal=number, compensates=booked
        )
    assert broken(told) == []


def test_a_cause_that_is_not_there(told):
    begun = told.event("TripRequested")
    told.event("FlightBooked", "flights.book", begun)
    told.sightings.remove(begun)
    assert broken(told) == [
        ("V06", f"FlightBooked names event {begun.event_id} as its cause, and that is not in the saga")
    ]


def test_an_event_that_is_its_own_cause(told):
    odd = told.event("ClaimFiled", event_id="odd")
    told.sightings[0] = odd._replace(causation_id="odd")
    assert ("V06", "ClaimFiled names itself as its cause") in broken(told)


def test_an_effect_before_its_cause(told):
    asked = told.event("ApprovalAsked", place=Place("approvals", 0, 9))
    told.event("Reminded", "approvals.remind", asked, place=Place("approvals", 0, 4))
    assert broken(told) == [("V07", "Reminded lies at approvals/0@4, before its cause ApprovalAsked at approvals/0@9")]
    told.event("ApprovalAsked", place=Place("approvals", 1, 0))
    assert broken(told) == [], "it may be this copy that was handled"


def test_an_id_that_is_not_derived_as_it_says(told):
    begun = told.event("ClaimFiled")
    told.event("ClaimAssessed", cause=begun, source="claims", event_id="018bcfe5-6800-8123-8456-0123456789ab")
    assert broken(told) == [("V08", "the id of ClaimAssessed is not one that claims.assess derives from ClaimFiled")]


def test_a_handler_that_took_effect_twice(told):
    begun = told.event("ClaimFiled")
    told.event("ClaimAssessed", "claims.assess", begun)
    told.event("ClaimAssessed", cause=begun, source="claims", event_id="another")
    assert broken(told) == [
        (
            "V09",
            "claims.assess took effect twice for one ClaimFiled: ClaimAssessed is not of the call that emitted the rest",
        )
    ]


def test_a_call_that_was_repeated_with_another_result(told):
    begun = told.event("ClaimFiled")
    told.event("ClaimAssessed", "claims.assess", begun)
    told.event("ClaimRejected", "claims.assess", begun)
    assert broken(told) == [("V09", "ClaimAssessed: another record of its id is a ClaimRejected of claims")]


def test_plays_break_no_law_that_the_runtime_keeps():
    world = World(list(truths(seed=41, count=800)), seed=41, late=0.0, shuffled=False)
    seen = sightings(chain.from_iterable(world.lying.values()))
    codes = Counter()
    for truth in world.truths:
        saga = fold(seen[truth.saga], GRAPH, world.around)
        found = {violation.code for violation in verify(saga)}
        codes.update(found)
        assert ("V01" in found) == truth.play.diverged
        assert ("V02" in found) == (truth.outcome == "conflict")
        assert ("V06" in found) <= truth.loses_start
    assert codes.keys() == {"V01", "V02", "V04", "V06"}
    assert codes.keys() <= LAWS.keys()


def test_the_first_event_of_a_started_saga_needs_no_cause_here(told):
    told.event(
        "ReviewWritten",
        cause=told.event("ClaimFiled", event_id="elsewhere"),
        event_id=told.saga,
        parent="other",
        source="x",
    )
    told.sightings.pop(0)
    assert broken(told) == []

"""Every state of a saga by example, with its reason."""

from __future__ import annotations

import pytest

from choreo import Choreography
from services import delivery
from tests.unit.saga.telling import START, Telling, duty


@pytest.fixture
def told():
    return Telling()


def claim(told, **how):
    return told.event("ClaimFiled", **how)


def trip(told, **how):
    return told.event("TripRequested", **how)


# --- conflict, diverged, failed, truncated ----------------------------------------------------------------------------


def test_two_outcomes_are_a_conflict(told):
    begun = trip(told)
    told.event("TripConfirmed", at=2_000, event_id="by hand")
    told.event("TripFailed", "desk.expire", begun, at=1_000)
    saga = told.fold()
    assert (saga.state, saga.outcome) == ("conflict", "conflict")
    assert (
        saga.reason == "two outcomes: TripConfirmed from portal at 22:13:22 and TripFailed from desk.expire at 22:13:21"
    )


@pytest.mark.parametrize(
    ("type_name", "by", "why"),
    [
        ("HotelChosen", "cars.offer", "no handler of cars is declared to emit HotelChosen for TripRequested"),
        ("Vanished", "cars.offer", "no handler of cars is declared to emit Vanished for TripRequested"),
        ("HotelChosen", "legacy.x", "nobody declares legacy"),
        ("FlightBooked", "flights.cancel", ""),
    ],
)
def test_an_emission_that_nobody_declares_makes_a_saga_diverge(told, type_name, by, why):
    told.event(type_name, by, trip(told))
    saga = told.fold()
    assert (saga.state == "diverged") == bool(why)
    assert why in saga.reason


def test_an_answer_from_outside_may_name_its_cause(told):
    asked = told.event("ApprovalAsked", "approvals.ask", trip(told))
    told.event("ApprovalGiven", cause=asked, event_id="g-1", source="/partner")
    saga = told.fold()
    assert saga.state != "diverged"
    assert saga.events[-1].handler is None
    assert saga.events[-1].oddity == ""


def test_an_open_dead_letter_is_a_failure(told):
    begun = trip(told)
    told.letter("flights.book", begun)
    saga = told.fold()
    assert saga.state == "failed"
    assert saga.reason == (
        "flights.book has given up on TripRequested after 5 calls (GatewayError: no answer): dead letter 4f2a0123 is open"
    )
    assert (("FlightBooked", "FlightRefused"), "flights.book") in {(each.what, each.handler) for each in saga.expected}


def test_a_dead_letter_of_a_handler_that_emits_holds_up_even_a_saga_with_its_outcome(told):
    begun = trip(told)
    told.event("TripFailed", "desk.expire", begun)
    told.letter("cars.offer", begun)
    saga = told.fold()
    assert (saga.state, saga.outcome) == ("failed", "failed")


def test_so_does_one_of_a_handler_that_is_not_declared(told):
    told.letter("mail.shout", told.event("TripConfirmed"))
    assert told.fold().state == "failed"


def test_a_completed_saga_mentions_the_dead_letter_of_a_leaf(told):
    confirmed = told.event("TripConfirmed")
    told.letter("mail.write", confirmed)
    saga = told.fold()
    assert saga.state == "completed"
    assert saga.reason.endswith("; mail.write has not handled TripConfirmed, dead letter 4f2a0123 is open")


def test_the_same_dead_letter_makes_a_saga_fail_that_has_no_outcome(told):
    told.letter("lake.load", trip(told))
    assert told.fold().state == "failed"


@pytest.mark.parametrize("service", ["flights.", "connector."])
def test_a_dead_letter_without_a_handler_is_that_of_all_who_take_the_event(told, service):
    told.letter(service, trip(told))
    saga = told.fold()
    assert saga.state == "failed"
    dead = {each.handler for each in saga.duties if each.status == "dead"}
    assert dead == ({"flights.book"} if service == "flights." else {"connector."})


def test_a_saga_whose_first_event_is_gone_is_truncated(told):
    begun = trip(told)
    booked = told.event("FlightBooked", "flights.book", begun, at=1_000)
    told.sightings.remove(begun)
    saga = told.fold()
    assert (saga.state, saga.type) == ("truncated", "")
    assert saga.reason == (
        f"its first event is no longer in the log: FlightBooked from flights.book at 22:13:21 names {begun.event_id} as its cause"
    )
    early = told.fold(reached=500)
    assert early.state == "running"
    assert early.reason == "the cause of FlightBooked from flights.book at 22:13:21 has not been read yet"
    assert booked.event_id == early.events[0].id


def test_a_cause_that_a_foreign_producer_names_may_be_in_no_log(told):
    other = told.event("ClaimFiled", event_id="of their own")
    told.sightings.clear()
    trip(told)
    told.event("ApprovalGiven", cause=other, event_id="g", source="/partner")
    assert told.fold().state == "waiting"


def test_a_saga_that_was_started_in_another_one_is_whole(told):
    other = told.event("ReviewWritten", source="lake", event_id="elsewhere")
    told.sightings.remove(other)
    told.event("ReviewWritten", "lake.load", other, event_id=told.saga, parent="parent-saga", read=())
    saga = told.fold()
    assert (saga.state, saga.parent) == ("running", "parent-saga")


def test_an_event_that_only_its_dead_letter_tells_of_is_not_missing(told):
    begun = trip(told)
    told.letter("flights.book", begun)
    told.sightings.remove(begun)
    assert told.fold().events[0].oddity == "its record has not been read"
    told.beginnings[begun.place.of] = begun.place.offset + 1
    saga = told.fold()
    assert (saga.state, saga.type) == ("failed", "TripRequested")
    assert saga.events[0].oddity == "its record is no longer in the log"
    assert saga.events[0].places == (begun.place,)


# --- undoing ----------------------------------------------------------------------------------------------------------


def failed_trip(told, **read):
    """A flight was booked before the trip failed."""
    begun = trip(told)
    booked = told.event("FlightBooked", "flights.book", begun, at=100)
    refused = told.event("HotelRefused", "hotels.choose", begun, at=200)
    failed = told.event("TripFailed", "desk.give_up", refused, at=300, **read)
    return booked, failed


def test_what_is_to_be_undone_makes_a_saga_compensate(told):
    failed_trip(told, read=("desk", "hotels", "cars", "approvals", "mail"))
    saga = told.fold()
    assert saga.state == "compensating"
    assert saga.reason == (
        "TripFailed from desk.give_up at 22:13:20: 1 of 1 effects still to be undone, FlightBooked by flights.cancel"
    )
    assert [(line.type, line.status, line.compensation) for line in saga.ledger] == [
        ("FlightBooked", "owed", "flights.cancel")
    ]


def test_all_undone_is_compensated(told):
    booked, failed = failed_trip(told)
    cancelled = told.event("FlightCancelled", "flights.cancel", failed, compensates=booked, at=400)
    saga = told.fold()
    assert saga.state == "compensated"
    assert saga.reason == "failed with TripFailed from desk.give_up at 22:13:20; undone: FlightBooked"
    assert saga.ledger[0].undone_by == (cancelled.event_id,)
    assert saga.ledger[0].failure == failed.event_id
    assert saga.ended_ms == START + 400


def test_nothing_to_undo_is_said(told):
    begun = trip(told)
    refused = told.event("FlightRefused", "flights.book", begun)
    told.event("TripFailed", "desk.give_up", refused)
    saga = told.fold()
    assert saga.state == "compensated"
    assert saga.reason.endswith("; nothing had to be undone")
    assert duty(saga, "flights.cancel").status == "unneeded"


def test_a_failure_after_which_no_outcome_can_come_is_an_end(told):
    told.event("ClaimRejected", "claims.assess", claim(told), at=5_000)
    saga = told.fold()
    assert (saga.state, saga.outcome) == ("compensated", None)
    assert saga.reason == "failed with ClaimRejected from claims.assess at 22:13:25; nothing had to be undone"


def test_what_a_deaf_service_did_is_uncovered(told):
    begun = trip(told)
    told.event("VisaChecked", "extras.visa", begun)
    told.event("TripFailed", "desk.expire", begun, at=600_000)
    saga = told.fold(now=700_000)
    assert [(line.type, line.status, line.compensation) for line in saga.ledger] == [("VisaChecked", "uncovered", None)]
    assert saga.reason.endswith("; no compensation is declared for VisaChecked")


def test_where_nobody_undoes_anything_nothing_is_uncovered(told):
    begun = claim(told)
    told.event("ClaimRejected", "claims.assess", begun)
    told.event("BankChecked", "banks.check", begun)
    assert told.fold().ledger == ()


def test_an_undoing_that_was_given_up_leaves_a_saga_partially_compensated(told):
    _, failed = failed_trip(told)
    told.settle(told.letter("flights.cancel", failed), "discarded")
    saga = told.fold()
    assert saga.state == "partially-compensated"
    assert (
        saga.reason
        == "FlightBooked of flights.book is not undone: dead letter 4f2a0123 of flights.cancel was discarded"
    )
    assert saga.ledger[0].status == "impossible"


def test_an_undoing_that_ends_in_a_failure_does_too(told):
    booked, failed = failed_trip(told)
    told.event("FlightStays", "flights.cancel", failed, compensates=booked)
    saga = told.fold()
    assert saga.state == "partially-compensated"
    assert saga.reason.endswith("flights.cancel has emitted a failure")


def test_an_effect_that_stays_owed_though_all_was_read_does_too(told):
    failed_trip(told)
    saga = told.fold()
    assert saga.state == "partially-compensated"
    assert saga.reason.endswith("flights.cancel was called and nothing has come of it")


# --- the good end -----------------------------------------------------------------------------------------------------


def test_the_good_outcome_and_nothing_open_is_completed(told):
    assessed = told.event("ClaimAssessed", "claims.assess", claim(told))
    told.event("ClaimPaid", "claims.pay", assessed, at=61_000)
    saga = told.fold(now=120_000)
    assert (saga.state, saga.expected) == ("completed", ())
    assert saga.reason == "completed with ClaimPaid from claims.pay at 22:14:21"
    assert (saga.started_ms, saga.updated_ms, saga.ended_ms) == (START, START + 61_000, START + 61_000)


def test_where_no_outcome_was_to_come_it_is_completed_when_all_branches_have_ended(told):
    written = told.event("ReviewWritten")
    told.event("ReviewPublished", "reviews.publish", written)
    saga = told.fold()
    assert (saga.state, saga.reason) == ("completed", "all branches have ended")


def test_an_event_of_an_unknown_type_from_outside_is_shown_as_what_it_is(told):
    told.event("Mystery", oddity="no correlation id: a saga of its own")
    saga = told.fold()
    assert (saga.state, saga.reason) == ("completed", "no declared handler takes Mystery")
    assert saga.events[0].oddity == "no correlation id: a saga of its own; no declared event has the type 'Mystery'"


# --- late, running, waiting, stuck ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_read", [True, False])
def test_a_deadline_that_was_not_called_is_late(told, is_read):
    begun = trip(told, read="all" if is_read else ("flights", "hotels", "cars", "extras", "approvals", "lake"))
    before, after = told.fold(now=605_499), told.fold(now=605_500)
    assert before.state == ("waiting" if is_read else "running")
    assert before.changes_ms == START + 605_500
    assert after.state == "late"
    unread = "" if is_read else ", and its group has not read TripRequested"
    assert after.reason == f"desk.expire was to be called with TripRequested at 22:23:20 and has not been{unread}"
    assert begun.event_id == after.duties[0].event


def test_what_nobody_has_read_is_running(told):
    claim(told, read=("banks",), at=3_000)
    saga = told.fold()
    assert (saga.state, saga.reason) == ("running", "claims.assess has not handled ClaimFiled of 22:13:23 yet")


def test_a_leaf_that_is_behind_keeps_a_saga_running_that_has_its_outcome(told):
    told.event("TripConfirmed", read=("desk",))
    saga = told.fold()
    assert (saga.state, saga.outcome, saga.ended_ms) == ("running", "completed", None)
    assert saga.reason == (
        "it has its outcome, TripConfirmed from portal at 22:13:20; mail.write has not handled TripConfirmed of 22:13:20 yet"
    )


def test_a_retry_is_waited_for_and_then_runs(told):
    told.again("claims.assess", claim(told), attempt=2, due=90_000)
    saga = told.fold(now=60_000)
    assert (saga.state, saga.changes_ms) == ("waiting", START + 90_000)
    assert saga.reason == "claims.assess is called again with ClaimFiled at 22:14:50, 2 calls failed"
    later = told.fold(now=90_000)
    assert (later.state, later.changes_ms) == ("running", None)
    assert later.reason == "claims.assess is to be called again with ClaimFiled since 22:14:50, 2 calls failed"


def test_an_answer_from_outside_is_waited_for(told):
    told.event("ApprovalAsked", "approvals.ask", trip(told))
    saga = told.fold()
    assert (saga.state, saga.reason) == ("waiting", "waiting for ApprovalGiven from outside until 22:15:00")
    assert ("ApprovalGiven",) in [each.what for each in saga.expected if each.handler is None]


def test_a_join_is_waited_for_while_what_it_lacks_can_come(told):
    begun = claim(told)
    told.event("ClaimAssessed", "claims.assess", begun)
    told.again("banks.check", begun, due=0)
    saga = told.fold()
    assert [(each.what, each.handler) for each in saga.expected] == [(("BankChecked",), "banks.check")] * 2
    assert saga.expected[1].because == "claims.pay has ClaimAssessed and waits for BankChecked"


def test_a_join_whose_event_nobody_will_emit_is_stuck(told):
    told.event("ClaimAssessed", "claims.assess", claim(told))
    saga = told.fold()
    assert (saga.state, saga.expected, saga.changes_ms) == ("stuck", (), None)
    assert saga.reason == "claims.pay has ClaimAssessed and waits for BankChecked, which nobody will emit any more"


def test_where_a_stuck_saga_ended_is_named(told):
    claim(told, at=2_000)
    saga = told.fold()
    assert saga.state == "stuck"
    assert (
        saga.reason == "it ended with ClaimFiled from portal at 22:13:22: claims.assess handled it and emitted nothing"
    )


def test_a_discarded_dead_letter_can_leave_a_saga_stuck(told):
    told.settle(told.letter("claims.assess", claim(told)), "discarded")
    saga = told.fold()
    assert saga.state == "stuck"
    assert saga.reason.endswith("claims.assess was not called again, its dead letter was discarded")


def test_times_of_another_day_are_told_with_the_day(told):
    told.again("claims.assess", claim(told), due=26 * 3_600_000)
    assert "at 2023-11-16 00:13:20" in told.fold().reason


def test_nothing_at_all_is_truncated(told):
    told.settle("nobody", "redriven")
    saga = told.fold()
    assert (saga.state, saga.reason, saga.events) == ("truncated", "none of its events is in the log", ())


def test_an_event_from_outside_that_brings_the_saga_to_its_end_is_waited_for():
    told = Telling(Choreography.of(delivery.services).graph)
    begun = told.event("ParcelBooked")
    planned = told.event("RoutePlanned", "delivery-planning.plan", begun)
    told.event("ParcelDispatched", "delivery-dispatch.load", planned)
    saga = told.fold()
    assert (saga.state, saga.reason) == ("waiting", "waiting for PositionUpdated from outside")
    assert [(each.what, each.handler) for each in saga.expected] == [(("PositionUpdated",), None)]

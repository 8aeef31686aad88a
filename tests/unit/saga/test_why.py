"""Why a saga is as it is: for every state, who owes what, whether they are alive, and what to do next."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain

import pytest

from choreo.saga.fold import fold
from choreo.saga.why import Group, why
from tests.tracker.comparing import sightings
from tests.tracker.laying import World
from tests.tracker.play import GRAPH
from tests.tracker.truth import truths
from tests.unit.saga.telling import START, Telling


@pytest.fixture
def told():
    return Telling()


def said(told, alive=None, **moment):
    return why(told.fold(**moment), alive or {})


def test_a_dead_letter_is_told_with_the_commands_that_help(told):
    begun = told.event("ClaimFiled")
    told.letter("claims.assess", begun)
    first, second, *steps = said(told)
    assert first.startswith("The saga is failed: claims.assess has given up on ClaimFiled after 5 calls")
    assert second == (
        f"ClaimFiled ({begun.place}) was delivered to claims.assess, which gave up after 5 calls; "
        "the last error was GatewayError: no answer."
    )
    assert steps[:3] == [
        "Next: see it, choreo dlq show 4f2a0123",
        "Once the cause is mended: choreo dlq redrive 4f2a0123 --why '...'",
        "If it need not be handled: choreo dlq discard 4f2a0123 --why '...'",
    ]


@pytest.mark.parametrize(
    ("group", "tells"),
    [
        (
            None,
            [
                "Whether group claims runs is not known.",
                "Next: see that it runs; if it does not, choreo run MODULE:claims",
            ],
        ),
        (
            Group(members=0),
            ["Nobody is in group claims, so nothing is handled there.", "Next: start it, choreo run MODULE:claims"],
        ),
        (
            Group(members=2, lag=1200, progress_ms=START + 1_000),
            [
                "Group claims has 2 members, is 1,200 records behind, and last moved on at 22:13:21.",
                "Next: wait; if its lag does not fall, look at the log of claims.",
            ],
        ),
        (Group(members=1, lag=0), ["Group claims has 1 member, is not behind."]),
    ],
)
def test_who_owes_something_is_told_with_how_its_group_is(told, group, tells):
    begun = told.event("ClaimFiled", read=("banks",))
    sentences = said(told, {"claims": group} if group else {})
    assert sentences[1] == (
        f"claims.assess has not handled ClaimFiled: it lies at {begun.place} since 22:13:20, "
        "and group claims has not told that it is done with it."
    )
    assert sentences[2:] == tells


def test_a_retry_tells_when_it_is_called_again(told):
    told.again("claims.assess", told.event("ClaimFiled"), attempt=2, due=90_000)
    assert said(told)[1] == (
        "ClaimFiled was delivered to claims.assess, and 2 calls of it failed; it is called again at 22:14:50."
    )


def test_an_answer_from_outside_is_told_with_how_to_publish_it(told):
    told.event("ApprovalAsked", "approvals.ask", told.event("TripRequested"))
    sentences = said(told)
    assert (
        "The timer of approvals.remind, set by ApprovalAsked, goes off at 22:15:00 unless something stops it before."
        in sentences
    )
    assert sentences[-1] == (
        f"Next: publish it if it is due, choreo publish ApprovalGiven --correlation-id {told.saga} --json '{{...}}'"
    )


def test_a_timer_of_a_service_that_nobody_runs_will_not_go_off(told):
    told.event("TripRequested")
    assert "Next: start it, choreo run MODULE:desk" not in said(told)
    assert "Next: start it, choreo run MODULE:desk" in said(told, {"desk": Group(members=0)})
    assert "Next: see that it runs; if it does not, choreo run MODULE:desk" in said(told, now=700_000)


def test_a_stuck_saga_tells_that_nothing_will_happen(told):
    told.event("ClaimAssessed", "claims.assess", told.event("ClaimFiled"))
    sentences = said(told)
    assert "No handler owes anything, no timer is set, and no retry is due: nothing will happen by itself." in sentences
    assert "claims.pay keeps ClaimAssessed and is never called." in sentences
    assert f"choreo publish TYPE --correlation-id {told.saga}" in sentences[-1]


def test_what_is_owed_is_told_with_its_reason(told):
    begun = told.event("TripRequested")
    told.event("FlightBooked", "flights.book", begun)
    told.event("TripFailed", "desk.expire", begun, read=("desk",))
    assert "flights.cancel owes to undo FlightBooked of flights.book, because of TripFailed." in said(told)


def test_what_was_given_up_is_undone_by_hand(told):
    begun = told.event("TripRequested")
    booked = told.event("FlightBooked", "flights.book", begun)
    failed = told.event("TripFailed", "desk.expire", begun)
    told.event("FlightStays", "flights.cancel", failed, compensates=booked)
    sentences = said(told)
    assert "flights.cancel has given up undoing FlightBooked of flights.book, because of TripFailed." in sentences
    assert "Next: undo it by hand, in the service that did it." in sentences


def test_many_open_duties_are_counted(told):
    for number in range(9):
        told.event("ClaimFiled", event_id=f"c{number}", read=("banks",))
    assert "There are 4 more like these." in said(told)


def test_an_ended_saga_needs_nothing(told):
    told.event("ClaimPaid", event_id="by hand")
    assert said(told)[-1] == "It ended at 22:13:20; nothing is to be done."


def test_each_state_has_its_own_sentences_and_a_next_step():
    world = World(list(truths(seed=31, count=1500)), seed=31)
    seen = sightings(chain.from_iterable(world.lying.values()))
    found = defaultdict(set)
    for truth in world.truths:
        saga = fold(seen[truth.saga], GRAPH, world.around)
        sentences = why(saga, {})
        assert sentences[0] == f"The saga is {saga.state}: {saga.reason}."
        found[saga.state] |= {sentence.split()[0] for sentence in sentences}
    ended = {"completed", "compensated"}
    assert len(found) == 12
    assert all("Next:" in words or "It" in words for state, words in found.items() if state in ended)
    assert all("Next:" in words for state, words in found.items() if state not in ended)

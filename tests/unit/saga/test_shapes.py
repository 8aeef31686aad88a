"""What is known of a saga by its shape is what a fold of it says."""

from __future__ import annotations

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from choreo import Choreography, Event, Failure, Service
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.store import Summary
from choreo.saga.tracker.shapes import Shapes
from choreo.saga.tracker.summary import summary_of
from tests.unit.saga.telling import SAGA, START, Telling


class Asked(Event, topic="asked", key="id"):
    """Begins a saga."""

    id: str


class Other(Event, topic="asked", key="id"):
    """The other half."""

    id: str


class Given(Event, topic="given", key="id"):
    """One half of a join by a field: the other one may be of another saga."""

    id: str


class Refused(Failure, topic="given", key="id"):
    """What goes wrong."""

    id: str


class Taken(Event, topic="taken", key="id"):
    """What comes of both halves."""

    id: str


class Undone(Event, topic="undone", key="id"):
    """What undoes the step."""

    id: str


desk = Service("desk")
till = Service("till")


@desk.on(Asked)
async def answer(asked: Asked) -> Given | Other | Refused: ...


@desk.compensates(answer, on=(Refused,))
async def undo(given: Given, failure: Refused) -> Undone: ...


@desk.deadline(Asked, within="100s", unless=(Refused,))
async def look(asked: Asked) -> Taken | None: ...


@till.join(Given, Other, by="id")
async def take(given: Given, other: Other) -> Taken: ...


GRAPH = Choreography.of([desk, till]).graph


class Known:
    """A tracker's shapes, and the fold beside them."""

    def __init__(self, graph=GRAPH) -> None:
        self.graph, self.shapes = graph, Shapes(graph)

    def both(self, told: Telling, *, now: int) -> tuple[Summary | None, Summary]:
        """What the shape says, if it is known, and what the fold says; that is learnt."""
        around = Surroundings(START + now, told.committed, {}, START + now)
        self.shapes.around(told.committed)
        known = self.shapes.summary(told.sightings)
        saga = fold(told.sightings, self.graph, around)
        if known is None:
            self.shapes.learn(told.sightings, saga, around)
        return known, summary_of(saga)


def telling(number: int) -> Telling:
    """The saga of this number."""
    return Telling(graph=GRAPH, saga=f"{SAGA[:-4]}{number:04}")


def test_a_timer_that_has_gone_by_in_one_saga_may_be_set_in_the_next():
    """A deadline's handler that may emit nothing leaves no mark: only the time tells that it was called."""
    known, old, young = Known(), telling(1), telling(2)
    for told, at in ((old, 0), (young, 500_000)):
        told.event("Asked", at=at)
    _, said = known.both(old, now=500_002)
    by_shape, folded = known.both(young, now=500_002)
    assert folded.until_ms == START + 600_000, "or this test shows nothing"
    assert by_shape in {None, folded}
    assert said.until_ms is None


def test_which_event_began_a_saga_is_told_by_places_where_times_are_equal():
    known = Known()
    for number, times in enumerate([(5, 1), (1, 1), (1, 5)]):
        told = telling(number)
        told.event("Asked", at=times[0], event_id=f"b-{number}", key="first")
        told.event("Refused", at=times[1], event_id=f"a-{number}", key="second")
        by_shape, folded = known.both(told, now=1_000)
        assert by_shape in {None, folded}


def test_a_join_by_a_field_that_is_empty_finds_nothing():
    known = Known()
    for number, key in enumerate(["", "k"]):
        told = telling(number)
        begun = told.event("Asked", key=key)
        answered = told.event("Given", "desk.answer", begun, at=1, key=key)
        refused = told.event("Refused", "desk.answer", begun, ordinal=1, at=2, key=key)
        told.event("Undone", "desk.undo", refused, at=3, key=key, compensates=answered)
        by_shape, folded = known.both(told, now=500_000)
        assert by_shape in {None, folded}


EVENTS = st.tuples(
    st.sampled_from(["Asked", "Other", "Given", "Refused", "Taken", "Undone"]),
    st.sampled_from(["desk.answer", "desk.undo", "desk.look", "till.take", "portal.x"]),
    st.integers(-1, 3),
    st.integers(0, 3),
    st.sampled_from(["", "k", "l"]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(EVENTS, min_size=1, max_size=5),
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.integers(0, 1), st.booleans(),
                       st.sampled_from(["k", "", "m"])), min_size=2, max_size=5),
)  # fmt: skip
def test_sagas_of_one_shape_are_the_same(events, variants):
    """The same events with other ids, times and keys, folded soon and late."""
    known = Known()
    for number, (times, late, named, renamed) in enumerate(variants):
        told, seen = telling(number), []
        for place, (name, by, cause, parent, key) in enumerate(events):
            of = seen[cause] if 0 <= cause < len(seen) else None
            event_id = None if place == 0 and named else str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{number} {place}"))
            seen.append(
                told.event(
                    name, by, of, at=times[place], event_id=event_id, key=renamed if key == "k" else key,
                    compensates=seen[parent] if parent < len(seen) else None,
                )
            )  # fmt: skip
        by_shape, folded = known.both(told, now=200_000 if late else 10)
        assert by_shape in {None, folded}

"""What was known of a saga at a moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from choreo.dlq.letters import Place
from choreo.saga.questions.past import seen_until
from choreo.saga.sighting import Again, Letter, Settled, Sighting

OF = Place("orders", 0, 0)
EVENT = Sighting(OF, "event", "s", "e", "T", "web", None, None, None, 100, 100, "k", "")


def again(offset: int, attempt: int, due_ms: int, redrives: int = 0) -> Sighting:
    said = Again("pay.charge", OF, attempt, due_ms, 150, redrives, discard=False)
    return EVENT._replace(place=Place("retry.pay", 0, offset), kind="again", said=said)


def letter(failed_ms: int) -> Sighting:
    said = Letter("l", "pay.charge", OF, "fatal", "E", "m", "f", 3, 150, failed_ms, 0, parked=False)
    return EVENT._replace(place=Place("dlq.pay", 0, 0), kind="letter", said=said)


SETTLED = EVENT._replace(
    place=Place("dlq.pay", 0, 1), kind="settled", saga="", said=Settled("l", "redriven", "me", "", 900, 500)
)
ALL = [EVENT, again(0, 1, 250), again(1, 2, 450), letter(500), SETTLED]


def known(moment_ms: int) -> list[str]:
    return [
        f"{seen.kind}{seen.said.attempt if isinstance(seen.said, Again) else ''}" for seen in seen_until(ALL, moment_ms)
    ]


def test_each_record_is_known_from_when_it_was_written():
    assert known(99) == []
    assert known(100) == ["event"]
    assert known(150) == ["event", "again1"]  # it had failed for the first time
    assert known(250) == ["event", "again1", "again2"]  # when the first retry was due, and failed again
    assert known(500) == ["event", "again1", "again2", "letter"]
    assert known(900) == ["event", "again1", "again2", "letter", "settled"]


@given(st.integers(0, 1000), st.integers(0, 1000), st.permutations(ALL))
def test_later_more_is_known_in_whatever_order_it_came(one: int, other: int, order: list[Sighting]):
    early, late = sorted((one, other))
    assert set(seen_until(order, early)) <= set(seen_until(order, late))
    assert set(seen_until(order, early)) == set(seen_until(ALL, early))

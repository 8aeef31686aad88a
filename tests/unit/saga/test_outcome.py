"""How a saga has ended, from what its events declare."""

import pytest

from choreo.saga.outcome import outcome_of


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ([], None),
        ([None, None], None),
        ([None, "completed"], "completed"),
        (["failed", None, "failed"], "failed"),
        (["completed", None, "failed"], "conflict"),
        (["failed", "completed"], "conflict"),
    ],
)
def test_the_outcome_follows_from_the_terminal_events_in_any_order(ends, outcome):
    assert outcome_of(ends) == outcome
    assert outcome_of(reversed(ends)) == outcome

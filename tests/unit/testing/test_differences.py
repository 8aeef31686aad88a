"""What a failing comparison of events says."""

from choreo.testing.differences import differences
from tests.unit.testing.samples import Paid, Placed


def test_the_fields_that_differ_are_named():
    assert differences([Placed(id="a", n=1)], [Placed(id="a", n=2)]) == [
        "1 events, 1 expected",
        "[0] Placed.n: 1, expected 2",
    ]
    assert differences(Placed(id="a"), Placed(id="b")) == [
        "Placed is not what is expected",
        "Placed.id: 'a', expected 'b'",
    ]


def test_events_that_are_missing_or_too_many_are_shown():
    assert differences([], [Paid(id="a")]) == ["0 events, 1 expected", "[0] is missing: Paid(id='a')"]
    assert differences([Paid(id="a")], []) == ["1 events, 0 expected", "[0] is one too many: Paid(id='a')"]


def test_events_of_another_class_are_shown_whole():
    assert differences([Paid(id="a")], [Placed(id="a")]) == [
        "1 events, 1 expected",
        "[0] is Paid(id='a'), expected Placed(id='a', n=1)",
    ]


def test_other_things_are_left_to_pytest():
    assert differences([1], [2]) is None
    assert differences("a", "b") is None
    assert differences([], []) is None
    assert differences([Paid(id="a")], None) is None

from datetime import timedelta

import pytest

from choreo import DeclarationError
from choreo.durations import seconds, text


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("250ms", 0.25),
        ("2s", 2),
        (" 1.5s ", 1.5),
        ("15m", 900),
        ("6h", 21600),
        ("3d", 259200),
        (0, 0),
        (1.5, 1.5),
        (timedelta(minutes=1), 60),
    ],
)
def test_durations_in_seconds(duration, expected):
    assert seconds(duration) == expected


@pytest.mark.parametrize("duration", ["", "5", "5 s", "-1s", "1w", "s", "1e3s", "1h30m"])
def test_text_that_is_no_duration_is_refused(duration):
    with pytest.raises(DeclarationError, match=r"is no duration \(write 250ms, 2s"):
        seconds(duration)


@pytest.mark.parametrize("duration", [-1, float("inf"), float("nan"), timedelta(seconds=-1)])
def test_numbers_out_of_range_are_refused(duration):
    with pytest.raises(DeclarationError, match="it must be zero or more, and finite"):
        seconds(duration)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (900.0, "15m"),
        (5400.0, "90m"),
        (86400.0, "1d"),
        (3601.0, "3601s"),
        (0.25, "250ms"),
        (1.5, "1500ms"),
        (0.0, "0s"),
        (0.0001, "0.0001s"),
    ],
)
def test_durations_are_shown_in_the_largest_whole_unit(value, shown):
    assert text(value) == shown


def test_what_is_shown_can_be_read():
    assert [seconds(text(value)) for value in (900.0, 0.25, 1.5, 172800.0)] == [900.0, 0.25, 1.5, 172800.0]

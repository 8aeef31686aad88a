from datetime import timedelta

import pytest

from choreo import DeclarationError
from choreo.durations import seconds


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

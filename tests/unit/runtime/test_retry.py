"""When the next attempt comes, and whether."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo import Retry
from choreo.durations import seconds
from choreo.runtime.retry import next_delay

chances = st.floats(0, 1, exclude_max=True)


@given(
    attempts=st.integers(1, 200),
    attempt=st.integers(1, 250),
    delay=st.floats(0, 10),
    more=st.floats(0, 1000),
    chance=chances,
)
def test_the_delay_stays_within_its_ceiling_and_ends_with_the_attempts(attempts, attempt, delay, more, chance):
    retry = Retry(attempts=attempts, delay=delay, max_delay=delay + more)
    wait = next_delay(retry, attempt, ValueError(), chance)
    if attempt >= attempts:
        assert wait is None
    else:
        assert wait is not None
        assert 0 <= wait <= min(retry.max_delay, delay * 2 ** (attempt - 1))


@given(chance=chances)
def test_full_jitter_reaches_from_zero_to_the_doubled_ceiling(chance):
    retry = Retry(attempts=10, delay="100ms", max_delay="1s")
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [next_delay(retry, attempt, ValueError(), chance) for attempt in range(1, 7)] == pytest.approx(
        [chance * ceiling for ceiling in ceilings]
    )
    assert seconds(retry.max_delay) == 1


def test_only_transient_errors_are_tried_again():
    retry = Retry(transient=(TimeoutError,))
    assert next_delay(retry, 1, TimeoutError(), 0.5) is not None
    assert next_delay(retry, 1, ValueError(), 0.5) is None
    assert next_delay(Retry(), 1, ValueError(), 0.5) is not None
    assert next_delay(Retry(attempts=1), 1, ValueError(), 0.5) is None

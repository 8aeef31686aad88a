"""What becomes of a failed attempt: by the kind of the error, the attempts made, the time gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo import Failure, Retry
from choreo.durations import seconds
from choreo.runtime.retry import Again, Declare, GiveUp, Later, decide, kind_of

chances = st.floats(0, 1, exclude_max=True)
NOW = 1_700_000_000_000


def after(retry, attempt=1, *, chance=0.5, far="topic", gone_ms=0, kind="transient", error=None):
    return decide(
        retry, error or ValueError(), kind, attempt=attempt, first_ms=NOW - gone_ms, now_ms=NOW, chance=chance, far=far
    )


@given(
    attempts=st.integers(1, 200),
    attempt=st.integers(1, 250),
    delay=st.floats(0, 10),
    more=st.floats(0, 1000),
    chance=chances,
)
def test_the_delay_stays_within_its_ceiling_and_ends_with_the_attempts(attempts, attempt, delay, more, chance):
    retry = Retry(attempts=attempts, delay=delay, max_delay=delay + more)
    decision = after(retry, attempt, chance=chance, far="lane")
    if attempt >= attempts:
        assert decision == GiveUp("exhausted")
    else:
        assert isinstance(decision, Again)
        assert 0 <= decision.delay <= min(retry.max_delay, delay * 2 ** (attempt - 1))


@given(chance=chances)
def test_full_jitter_reaches_from_zero_to_the_doubled_ceiling(chance):
    retry = Retry(attempts=10, delay="100ms", max_delay="1s")
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    decisions = [after(retry, attempt, chance=chance) for attempt in range(1, 7)]
    assert [decision.delay for decision in decisions] == pytest.approx([chance * ceiling for ceiling in ceilings])


@given(attempt=st.integers(1, 20), chance=chances, in_place=st.sampled_from(["0s", "500ms", "2s", "1h"]))
def test_waits_that_may_be_longer_than_in_place_are_spent_elsewhere(attempt, chance, in_place):
    retry = Retry(attempts=30, delay="250ms", max_delay="1m", in_place=in_place)
    long = min(60.0, 0.25 * 2 ** (attempt - 1)) > seconds(in_place)
    in_topic = after(retry, attempt, chance=chance, far="topic")
    assert isinstance(in_topic, Later if long else Again)
    if isinstance(in_topic, Later):
        assert NOW <= in_topic.due_ms <= NOW + 60_000
    assert isinstance(after(retry, attempt, chance=chance, far="lane"), Again)
    never = after(retry, attempt, chance=chance, far="never")
    assert never == GiveUp("exhausted") if long else isinstance(never, Again)


def test_no_attempt_begins_after_within():
    retry = Retry(attempts=99, delay="1s", max_delay="1s", within="1m")
    assert after(retry, gone_ms=59_000, chance=0.9) == Again(0.9)
    assert after(retry, gone_ms=59_200, chance=0.9) == GiveUp("exhausted")


class DeclinedError(Exception):
    """The gateway said no."""


class StolenCardError(DeclinedError):
    """The gateway said no, and worse."""


class Declined(Failure, topic="retry-tests", key="id"):
    """No."""

    id: str


def test_the_nearest_class_decides_the_kind():
    retry = Retry(transient=(OSError, StolenCardError), business=(DeclinedError,), fatal=(Exception, ConnectionError))
    assert kind_of(retry, OSError()) == "transient"
    assert kind_of(retry, TimeoutError()) == "transient", "its nearest named class is OSError"
    assert kind_of(retry, ConnectionResetError()) == "fatal"
    assert kind_of(retry, DeclinedError()) == "business"
    assert kind_of(retry, StolenCardError()) == "transient"
    assert kind_of(retry, KeyError()) == "fatal"
    assert kind_of(retry, KeyboardInterrupt()) == "fatal", "what nobody names"
    assert kind_of(Retry(transient=()), TimeoutError(), unnamed="transient") == "transient"


def test_business_and_fatal_errors_are_never_tried_again():
    retry = Retry(attempts=9, business=(DeclinedError,), fatal=(TypeError,))
    assert after(retry, kind="business", error=DeclinedError()) == GiveUp("rejected")
    assert after(retry, kind="fatal", error=TypeError()) == GiveUp("fatal")


def test_a_business_error_becomes_the_failure_of_its_nearest_class():
    def declined(event, error):
        return Declined(id="o")

    def stolen(event, error):
        return Declined(id="s")

    retry = Retry(business={DeclinedError: declined, StolenCardError: stolen})
    assert after(retry, kind="business", error=DeclinedError()) == Declare(declined)
    assert after(retry, kind="business", error=StolenCardError()) == Declare(stolen)

"""What to do after a handler raised. Pure."""

from __future__ import annotations

from choreo.durations import seconds
from choreo.service import Retry


def next_delay(retry: Retry, attempt: int, error: BaseException, chance: float) -> float | None:
    """Seconds to wait before the next attempt, or None if there is to be none.

    Args:
        attempt: which call just failed, counted from 1.
        chance: a random number from 0 up to 1.
    """
    if attempt >= retry.attempts or not isinstance(error, retry.transient):
        return None
    ceiling = min(seconds(retry.max_delay), seconds(retry.delay) * 2.0 ** min(attempt - 1, 60))
    return chance * ceiling

"""How long a consumer waits for its group before it begins again with a new client. Pure: times are told, in seconds."""

from __future__ import annotations

LEFT_OUT = 45.0
"""Seconds, beside a session's time: so long a group waits, after an outage, for members that it had before."""
_IN_VAIN = 10


class Patience:
    """Whether the group leaves a member out for so long that its client may have lost its brokers for good.

    Not while the client says that it cannot reach them: a new one would not either, and each that goes makes its group
    wait for it when they are back. But a client may be wrong for ever, so that counts only ten times as long. Each
    replacement doubles the patience, or the group takes its time, and begins anew with each member that goes.

    Args:
        session: the group's session timeout.
    """

    def __init__(self, session: float, now: float) -> None:
        self._first = LEFT_OUT + session
        self.taken_in(now)

    def taken_in(self, now: float) -> None:
        """The group has taken it in."""
        self._length, self._since, self._unreachable = self._first, now, now

    def unreachable(self, now: float) -> None:
        """The client says that it cannot reach its brokers."""
        self._unreachable = now

    def replaced(self, now: float) -> None:
        """It begins again with a new client."""
        self._length, self._since, self._unreachable = 2 * self._length, now, now

    def is_over(self, now: float) -> bool:
        """Whether it is time for a new client."""
        return now > min(self._unreachable + self._length, self._since + _IN_VAIN * self._length)

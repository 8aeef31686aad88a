"""What an instance has done, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Counts since the instance started; a run whose transaction fails is counted again when it is repeated.

    Attributes:
        handled: handler runs that ended well.
        emitted: events they emitted.
        duplicates: (event, handler) pairs dropped because the inbox knew them.
        retries: attempts after the first.
        dead_letters: records sent to the dead letters.
    """

    handled: int = 0
    emitted: int = 0
    duplicates: int = 0
    retries: int = 0
    dead_letters: int = 0

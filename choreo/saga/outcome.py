"""How a saga has ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from choreo.events import Outcome

Ending: TypeAlias = Literal["completed", "failed", "conflict"]


def outcome_of(ends: Iterable[Outcome | None]) -> Ending | None:
    """The outcome of a saga, from what each of its events declares (`Event` class argument `ends`), in any order.

    `conflict` if two of them declare different ones; None while it is open.
    """
    declared = {end for end in ends if end is not None}
    if len(declared) > 1:
        return "conflict"
    return next(iter(declared), None)

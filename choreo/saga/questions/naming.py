"""Which saga is meant: by its id or the beginning of it, its business key, one of its events, or a dead letter."""

from __future__ import annotations

from typing import NamedTuple

from choreo.errors import UnknownSagaError
from choreo.saga.filters import Compare
from choreo.saga.store.port import TrackerStore

_SHORTEST = 4
"""With fewer characters too much would begin so."""
_SHOWN = 5


class Found(NamedTuple):
    """The saga that a name means.

    Attributes:
        others: further sagas that have the name as their business key, newest first, up to a few.
    """

    saga: str
    others: tuple[str, ...] = ()


async def find(store: TrackerStore, name: str) -> Found:
    """The saga of this name. A whole id comes before a business key, and that before the beginning of an id.

    Raises:
        UnknownSagaError: no saga has it, or more than one has an id that begins so.
    """
    if await store.summaries([name]):
        return Found(name)
    if name and (of_key := [row.saga for row in (await store.page(Compare("key", "=", name), limit=_SHOWN + 1)).rows]):
        return Found(of_key[0], tuple(of_key[1:]))
    if len(name) >= _SHORTEST:
        begins = await store.beginning_with(name, _SHOWN)
        if len(begins) == 1:
            return Found(begins[0])
        if begins:
            more = " …" if len(begins) == _SHOWN else ""
            raise UnknownSagaError(
                f"more than one saga has an id that begins with {name!r}", why=", ".join(sorted(begins)) + more,
                remedy="write more of it",
            )  # fmt: skip
        for sagas in (await store.sagas_of(name), await store.saga_of_letter(name)):
            if sagas:
                return Found(sagas[0], tuple(sagas[1 : _SHOWN + 1]))
    remedy = "see `choreo saga list`; a tracker that has not read all yet may not know it"
    raise UnknownSagaError(f"no saga has the id, business key, event or dead letter {name!r}", remedy=remedy)

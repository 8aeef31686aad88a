"""Who has numbers to show. Knows no metrics library: one is loaded by whoever reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias
from weakref import WeakSet

from choreo.observe.durations import Durations

Sample: TypeAlias = "tuple[str, tuple[str, ...], float | Durations]"
"""A metric's name (a counter's without `_total`), its labels' values, and its value."""


class Source(Protocol):
    """Somebody who has numbers to show."""

    def samples(self) -> Iterable[Sample]:
        """They, as they are now."""

    async def refresh(self) -> None:
        """Ask for those that are not at hand."""


sources: WeakSet[Source] = WeakSet()
"""All of this process; one that nobody holds any more, since its owner did not end as it should, has nothing to show either."""

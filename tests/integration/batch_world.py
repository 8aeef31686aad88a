"""A service that loads orders in batches, and what is to be seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from choreo import BatchContext, Retry, Service
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_world import AT_ONCE, TABLES, Placed

BIG = 1_000_000
"""A size that no batch reaches: it goes when its time has come."""


class Lake:
    """The service `payments` (so that faults find it), whose one handler writes orders into its table.

    Args:
        spoils: of which orders a call fails, with what error.
        options: of `Service.batch`.

    Attributes:
        calls: the orders' numbers of each call.
        spoils: may be changed at any time.
    """

    def __init__(
        self,
        spoils: Callable[[Placed], BaseException | None] = lambda _: None,
        *,
        retry: Retry = AT_ONCE,
        **options: Any,
    ) -> None:
        self.calls: list[list[int]] = []
        self.contexts: list[BatchContext] = []
        self.spoils = spoils
        self.service = Service("payments", tables=TABLES)

        @self.service.batch(Placed, retry=retry, **options)
        async def load(orders: list[Placed], ctx: BatchContext) -> None:
            self.calls.append([order.n for order in orders])
            self.contexts.append(ctx)
            await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in orders])
            for order in orders:
                if (error := self.spoils(order)) is not None:
                    raise error


def orders(count: int, keys: int = 5, first: int = 0) -> list[Placed]:
    """Orders in turn for several keys."""
    return [Placed(id=f"k{n % keys}", n=n) for n in range(first, first + count)]


def in_order(rows: Sequence[tuple[str, int]], numbers: Sequence[int], keys: int = 5) -> bool:
    """Whether these orders, each once, are there, those of each key in their order."""
    assert sorted(n for _, n in rows) == sorted(numbers)
    return all(
        [n for name, n in rows if name == f"k{key}"] == [n for n in numbers if n % keys == key] for key in range(keys)
    )


async def turning(clock: TurnedClock, until: Callable[[], Any], seconds: float = 1.0) -> None:
    """Let time pass until this holds."""
    for _ in range(20_000):
        if until():
            return
        clock.turn(seconds)
        await asyncio.sleep(0.0005)
    raise AssertionError("never true")

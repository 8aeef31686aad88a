"""Keeping a store in order: inbox keys and notes that are old enough go, outbox rows that somebody has left are published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from choreo.errors import StoreError
from choreo.runtime.clock import Clock
from choreo.runtime.publisher import Publisher
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import OutboxRow

_log = structlog.get_logger("choreo.runtime")
_BITE = 500
_BETWEEN_BITES, _BETWEEN_ROUNDS = 0.1, 3600.0
_BETWEEN_LOOKS = 2.0
"""Seconds."""
_ABANDONED_MS = 10_000
"""An outbox row of this age is taken for one whose writer has died. If it only was slow, the copy has the same event ids."""


async def publish_left(
    service: str, left: Callable[[int], Awaitable[list[OutboxRow]]], publisher: Publisher, clock: Clock
) -> None:
    """Publish what outside writers have left, until cancelled; `left` knows the rows from before a time (ms)."""
    while True:
        try:
            for row in await left(clock.now_ms() - _ABANDONED_MS):
                publisher.put(row.row_id, row.records)
        except StoreError as error:
            _log.warning("the outbox is looked at later", service=service, error=str(error))
        await clock.pause(_BETWEEN_LOOKS)


async def clean_store(
    service: str, unit: UnitOfWork, clock: Clock, inbox_keep: float, saga_keep: float, is_busy: Callable[[], bool]
) -> None:
    """Remove what is older than so many seconds every hour, in small bites and fewer when busy, until cancelled."""
    store = unit.store
    while True:
        await clock.pause(_BETWEEN_ROUNDS * (0.5 + clock.random() / 2))
        try:
            await _clean(unit, clock, store.expire, inbox_keep, is_busy)
            await _clean(unit, clock, store.expire_notes, saga_keep, is_busy)
            await unit.forget_released()
        except StoreError as error:
            _log.warning("the store is cleaned later", service=service, error=str(error))


async def _clean(
    unit: UnitOfWork,
    clock: Clock,
    expire: Callable[[int, bytes, int], Awaitable[bytes]],
    keep: float,
    is_busy: Callable[[], bool],
) -> None:
    before_ms, looked_at = clock.now_ms() - round(keep * 1000), b""

    async def bite() -> bytes:
        return await expire(before_ms, looked_at, _BITE)

    while looked_at := await unit.apart(bite):
        await clock.pause(_BETWEEN_BITES * (10 if is_busy() else 1))  # one that is always busy must be cleaned too

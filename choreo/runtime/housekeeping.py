"""Cleaning the inbox: keys older than `Settings.inbox_keep` go, in small bites and only while there is time for it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from choreo.errors import StoreError
from choreo.runtime.clock import Clock
from choreo.runtime.unit import UnitOfWork

_log = structlog.get_logger("choreo.runtime")
_BITE = 500
_BETWEEN_BITES, _BETWEEN_ROUNDS = 0.1, 3600.0
"""Seconds."""


async def clean_inbox(unit: UnitOfWork, clock: Clock, keep: float, is_busy: Callable[[], bool]) -> None:
    """Go through the inbox every hour, until cancelled; `keep` is in seconds."""
    while True:
        await clock.sleep(_BETWEEN_ROUNDS * (0.5 + clock.random() / 2))
        try:
            await _clean(unit, clock, clock.now_ms() - round(keep * 1000), is_busy)
        except StoreError as error:
            _log.warning("the inbox is cleaned later", error=str(error))


async def _clean(unit: UnitOfWork, clock: Clock, before_ms: int, is_busy: Callable[[], bool]) -> None:
    looked_at = b""

    async def bite() -> bytes:
        return await unit.store.expire(before_ms, looked_at, _BITE)

    while looked_at := await unit.apart(bite):
        await clock.sleep(_BETWEEN_BITES)
        while is_busy():
            await clock.sleep(_BETWEEN_BITES)

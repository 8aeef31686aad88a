"""Waiting for what must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(working: asyncio.Future[T], hurry: Callable[[], Awaitable[None]] | None = None) -> T:
    """What it gives. Who is cancelled meanwhile hears of that when it has ended: until then its connection is in use.

    Args:
        hurry: asks it to end, when who waits is cancelled.
    """
    try:
        await asyncio.wait({working})
    except asyncio.CancelledError:
        if hurry is not None:
            with suppress(asyncio.CancelledError):
                await hurry()
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # nobody asks any more
        raise
    return working.result()

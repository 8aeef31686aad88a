"""Waiting until nothing moves: asked of the event loop's tasks, never of the clock on the wall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from choreo.errors import ChoreoError

_STRIDE = 20
"""Steps of the event loop between two looks while something moves."""
_CALM = 4
"""Steps in a row at which nobody may be able to run: callbacks, which no task stands for, take one each."""
_REAL_WAIT = 0.001
"""Seconds between two looks while a handler waits for something outside the event loop."""


class NotSettledError(ChoreoError):
    """Something goes on and on, or waits for what does not come."""


async def until_still(busy: Callable[[], Sequence[str]], check: Callable[[], None], patience: float) -> None:
    """Wait until no task can run, and nobody waits for something outside the event loop.

    Args:
        busy: who does, in words.
        check: raises if something has failed.
        patience: seconds of real time after which it is given up.

    Raises:
        NotSettledError: it has not become still; says who is busy with what.
    """
    end, calm = monotonic() + patience, 0
    while calm < _CALM:
        for _ in range(1 if calm else _STRIDE):
            await asyncio.sleep(0)
        check()
        if moving := runnable():
            calm = 0
        elif busy():
            calm = 0
            await asyncio.sleep(_REAL_WAIT)
        else:
            calm += 1
            continue
        if monotonic() > end:
            raise _too_long(patience, busy(), moving)


def runnable() -> list[asyncio.Task[Any]]:
    """The tasks of this event loop that wait for nothing, but for the one that asks."""
    me = asyncio.current_task()
    return [task for task in asyncio.all_tasks() if task is not me and not _waits(task)]


def _waits(task: asyncio.Task[Any]) -> bool:
    waiter: asyncio.Future[Any] | None = task._fut_waiter  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else tells
    return waiter is not None and not waiter.done()


def _too_long(patience: float, waiting: Sequence[str], moving: Sequence[asyncio.Task[Any]]) -> NotSettledError:
    busy = [*waiting] or [
        f"task {task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in moving
    ]
    return NotSettledError(
        f"not settled after {patience:g} s: {'; '.join(busy[:5])}",
        why="a handler waits for something that does not come by itself" if waiting else "it goes on and on",
        remedy="let the test provide it, replace outside calls by fakes, or give more time: running(..., patience=60)",
    )

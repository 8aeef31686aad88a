"""The virtual clock: who wakes when it is moved."""

from __future__ import annotations

import asyncio
import random

from choreo.testing.clock import VirtualClock


def clock_at(start_ms: int = 1_000) -> VirtualClock:
    return VirtualClock(start_ms, random.Random(1))


async def test_who_sleeps_wakes_at_its_moment_and_not_before():
    clock, woken = clock_at(), []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now_ms()))

    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (2, 1, 3)]
    await asyncio.sleep(0)
    while (due := clock.next_due(pauses=False)) is not None:
        clock.move_to(due)
        await asyncio.sleep(0)
    assert woken == [(1, 2_000), (2, 3_000), (3, 4_000)]
    await asyncio.gather(*tasks)


async def test_a_pause_is_no_reason_to_stop_but_is_over_at_the_next_stop():
    clock = clock_at()
    pause = asyncio.create_task(clock.pause(1))
    await asyncio.sleep(0)
    assert clock.next_due(pauses=False) is None
    assert clock.next_due(pauses=True) == 2_000_000
    clock.move_to(60_000_000)
    await pause


async def test_who_was_cancelled_is_nobody_to_stop_for():
    clock = clock_at()
    sleep = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    sleep.cancel()
    await asyncio.gather(sleep, return_exceptions=True)
    assert clock.next_due(pauses=True) is None


async def test_no_time_is_no_wait():
    clock = clock_at()
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.now_ms() == 1_000


async def test_a_sleep_never_ends_before_the_millisecond_that_it_was_for():
    clock = clock_at()
    sleep = asyncio.create_task(clock.sleep(0.0123456))
    await asyncio.sleep(0)
    clock.move_to(clock.next_due(pauses=False))
    await sleep
    assert clock.now >= 1_012_345.6
    assert clock.monotonic() == clock.now / 1e6


def test_chance_follows_from_the_seed():
    assert [clock_at().random() for _ in range(3)] == [clock_at().random() for _ in range(3)]

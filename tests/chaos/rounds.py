"""A round: events are published while faults come; then all is healed, awaited, and checked."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.chaos.arena import Arena, Setup
from tests.chaos.checker import Checker, Finding, Verdict
from tests.chaos.faults import Strike, strike_all
from tests.chaos.schedule import Schedule, schedule

_LOOK, _CALM = 0.5, 2.0
_MAY_PASS = {"lost", "rest"}
"""Kinds of findings that waiting may end."""


class Outcome(NamedTuple):
    """How a round ended."""

    verdict: Verdict
    faults: Counter[str]
    seconds: float
    logs: str

    def text(self) -> str:
        """What was done and checked, in lines."""
        counted = ", ".join(f"{name} {count:,}" for name, count in sorted(self.verdict.checked.items()))
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return (
            f"faults: {self.faults.total()} ({faults})\nchecked: {counted}\n"
            f"settled after {self.seconds:.0f} s\n{self.verdict.text()}"
        )


async def chaos(
    setup: Setup,
    seed: int,
    seconds: float,
    sagas: int,
    *,
    patience: float = 60,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """One round with all the faults that its schedule names."""
    plan = schedule(setup, seed, seconds)
    print(plan)
    return await _round(setup, plan, seconds, sagas, patience, environment or {})


async def _round(
    setup: Setup, plan: Schedule, seconds: float, sagas: int, patience: float, environment: dict[str, str]
) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="choreo-chaos-") as folder:
        async with Arena(setup, Path(folder), Random(plan.seed), environment=environment) as arena:
            made: list[Strike] = []
            async with asyncio.TaskGroup() as group:
                group.create_task(arena.feed.run(sagas, seconds))
                group.create_task(strike_all(arena, plan.quick, made))
                group.create_task(strike_all(arena, plan.slow, made))
            return await settle(arena, Counter(strike.kind for strike in made), patience)


async def settle(arena: Arena, faults: Counter[str], patience: float) -> Outcome:
    """Heal everything, wait until nothing is missing or nothing moves any more, and say what was found."""
    clock = asyncio.get_running_loop()
    begun = moved = clock.time()
    size, looked = -1, -1
    await arena.heal()
    while True:
        now = await arena.size()
        if now != size:
            size, moved = now, clock.time()
        if clock.time() - moved > _CALM and (looked != size or clock.time() - moved > patience):
            looked = size
            verdict = await judge(arena)
            if not verdict.kinds() & _MAY_PASS or clock.time() - moved > patience:
                break
            looked = -1 if verdict.kinds() <= {"rest"} else looked
        await asyncio.sleep(_LOOK)
    died = [Finding("died", each) for each in arena.died()]
    verdict = verdict._replace(findings=[*verdict.findings, *died])
    return Outcome(verdict, faults, clock.time() - begun, arena.troubles() if verdict.findings else "")


async def judge(arena: Arena) -> Verdict:
    """What the checker says now."""
    feed = arena.feed
    return Checker(await arena.evidence(), feed.published, feed.garbage).verdict()

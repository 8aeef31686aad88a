"""A round: events are published while faults come; then all is healed, awaited, and checked."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg

from tests.chaos.arena import SETUPS, Arena, Setup
from tests.chaos.checker import Checker, Finding, Verdict
from tests.chaos.faults import FAULTS, Strike, strike_all
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.schedule import Schedule, schedule

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
    only: Iterable[str] = FAULTS,
    patience: float = 90,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """One round with all the faults that its schedule names."""
    plan = schedule(setup, seed, seconds, only)
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


async def scenario(name: str, *, broken: bool, patience: float = 10) -> Outcome:
    """The scenario of a sabotage, with the broken build or with the sound one."""
    sabotage = SABOTAGES[name]
    with tempfile.TemporaryDirectory(prefix="choreo-chaos-") as folder:
        journal = Path(folder, "journal")
        journal.mkdir()
        environment = {
            "CHOREO_CHAOS_SABOTAGE": name if broken else "",
            "CHOREO_CHAOS_PAUSE": str(sabotage.pause),
            "CHOREO_CHAOS_JOURNAL": str(journal) if "calls" in sabotage.shows else "",
        }
        async with Arena(SETUPS[sabotage.setup], Path(folder), Random(1), environment=environment, plain=True) as arena:
            await sabotage.provoke(arena)
            outcome = await settle(arena, Counter([name]), patience if broken else 60)
            calls = Counter(line for file in journal.iterdir() for line in file.read_text().splitlines())
            repeated = [Finding("calls", f"{call} was called {n} times") for call, n in calls.items() if n > 1]
            return outcome._replace(verdict=outcome.verdict._replace(findings=[*outcome.verdict.findings, *repeated]))


async def settle(arena: Arena, faults: Counter[str], patience: float) -> Outcome:
    """Heal everything, wait until nothing is missing or nothing moves any more, and say what was found."""
    clock = asyncio.get_running_loop()
    begun = moved = clock.time()
    size = -1
    await arena.heal()
    while True:
        await arena.calm()
        verdict, now = await judge(arena), await arena.size()
        if now != size:
            size, moved = now, clock.time()
        if not verdict.kinds() & _MAY_PASS or clock.time() - moved > patience:
            break
    died = [Finding("died", each) for each in arena.died]
    verdict = verdict._replace(findings=[*verdict.findings, *died])
    return Outcome(verdict, faults, clock.time() - begun, arena.troubles() if verdict.findings else "")


async def judge(arena: Arena) -> Verdict:
    """What the checker says now."""
    feed = arena.feed
    try:
        evidence = await arena.evidence()
    except (sqlite3.Error, psycopg.Error) as error:  # no process has come as far as making its tables
        return Verdict([Finding("lost", f"a store cannot be read: {error}")], Counter())
    return Checker(evidence, feed.published, feed.garbage).verdict()

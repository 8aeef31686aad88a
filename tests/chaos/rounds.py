"""A round: events are published while faults come; then all is healed, awaited, and checked."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg

from choreo.dlq import DeadLetters, Reason, Selection, dead_letters
from choreo.dlq.letters import Resolved
from tests.chaos.arena import GROUPS, SETUPS, Arena, Setup
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
    sys.stdout.write(f"{plan}\n")
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
            outcome = await settle(arena, Counter(strike.kind for strike in made), patience)
            if outcome.verdict.findings or setup.transactional:
                return outcome
            await mend(arena)
            again = await settle(arena, outcome.faults + Counter(["kill"] * len(GROUPS)), patience, mended=True)
            return again._replace(seconds=outcome.seconds + again.seconds)


async def mend(arena: Arena) -> None:
    """What was refused is taken now: dead letters are redriven or discarded, and processes die while keys are released."""
    arena.mended.touch()
    async with dead_letters(arena.log, values_of=Selection()) as letters:
        open_ones = letters.select(Selection(state="open"))
        unwanted = [each.id for each in open_ones if not each.handler] + [each.id for each in open_ones][::5]
        await _resolve(letters, "discarded", Selection(ids=tuple(unwanted)))
        for child in arena.children[: len(GROUPS)]:
            child.kill()
            child.start()
        for service in arena.setup.stores:
            await _resolve(letters, "redriven", Selection(service=service, state="open"))


async def _resolve(letters: DeadLetters, kind: Resolved, chosen: Selection) -> None:
    if letters.select(chosen):
        async for report in letters.resolve(chosen, Reason(kind=kind, by="chaos", why="mended")):
            assert not report.refused, report


async def scenario(name: str, *, broken: bool, patience: float = 10) -> Outcome:
    """The scenario of a sabotage, with the broken build or with the sound one."""
    sabotage = SABOTAGES[name]
    with tempfile.TemporaryDirectory(prefix="choreo-chaos-") as folder:
        environment = {
            "CHOREO_CHAOS_SABOTAGE": name if broken else "",
            "CHOREO_CHAOS_PAUSE": str(sabotage.pause),
            "CHOREO_CHAOS_JOURNAL": folder,
        }
        async with Arena(SETUPS[sabotage.setup], Path(folder), Random(1), environment=environment, plain=True) as arena:
            await sabotage.provoke(arena)
            outcome = await settle(arena, Counter([name]), patience if broken else 60)
            findings = outcome.verdict.findings
            if "calls" in sabotage.shows:
                findings = [*findings, *repeated_calls(Path(folder))]
            return outcome._replace(verdict=outcome.verdict._replace(findings=findings))


def repeated_calls(folder: Path) -> list[Finding]:
    """Handlers that were called more than once for an event, by the journals that they wrote here."""
    journals = [file.read_text() for file in folder.iterdir() if file.name.isdigit()]
    calls = Counter(line for journal in journals for line in journal.splitlines())
    return [Finding("calls", f"{call} was called {n} times") for call, n in calls.items() if n > 1]


async def settle(arena: Arena, faults: Counter[str], patience: float, *, mended: bool = False) -> Outcome:
    """Heal everything, wait until nothing is missing or nothing moves any more, and say what was found."""
    clock = asyncio.get_running_loop()
    begun = moved = clock.time()
    size = -1
    await arena.heal()
    while True:
        await arena.calm()
        verdict, now = await judge(arena, mended=mended), await arena.size()
        if now != size:
            size, moved = now, clock.time()
        if not verdict.kinds() & _MAY_PASS or clock.time() - moved > patience:
            break
    died = [Finding("died", each) for each in arena.died]
    verdict = verdict._replace(findings=[*verdict.findings, *died])
    return Outcome(verdict, faults, clock.time() - begun, await arena.troubles() if verdict.findings else "")


async def judge(arena: Arena, *, mended: bool) -> Verdict:
    """What the checker says now."""
    feed = arena.feed
    try:
        evidence = await arena.evidence()
    except (sqlite3.Error, psycopg.Error) as error:  # no process has come as far as making its tables
        return Verdict([Finding("lost", f"a store cannot be read: {error}")], Counter())
    return Checker(evidence, feed.published, (feed.garbage, feed.unsure), mended=mended).verdict()

"""Which faults come when: drawn from a seed, on two tracks, with pauses in which work gets done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from tests.chaos.arena import Setup
from tests.chaos.faults import FAULTS, Strike

_QUICK_EVERY, _SLOW_PAUSE = (1.0, 3.0), (2.0, 5.0)
_SLOW_TAKES = 4.0
"""Seconds that a slow fault may take beside what it holds: a broker starts again."""


class Schedule(NamedTuple):
    """The faults of a round, by track."""

    seed: int
    quick: list[Strike]
    slow: list[Strike]

    def __str__(self) -> str:
        strikes = sorted([*self.quick, *self.slow])
        return "\n".join([f"CHOREO_CHAOS_SEED={self.seed}", *(f"  {strike}" for strike in strikes)])


def schedule(setup: Setup, seed: int, seconds: float, only: Iterable[str] = FAULTS) -> Schedule:
    """The same for the same arguments. On each track every kind comes once before any comes again."""
    draw = Random(f"{seed} {setup.name}")
    kinds = [name for name, fault in FAULTS.items() if name in set(only) and fault.applies(setup)]
    quick = [name for name in kinds if not FAULTS[name].slow]
    slow = [name for name in kinds if FAULTS[name].slow]
    return Schedule(
        seed,
        list(_track(draw, quick, seconds, _QUICK_EVERY, 0.0)),
        list(_track(draw, slow, seconds, _SLOW_PAUSE, _SLOW_TAKES)),
    )


def _track(
    draw: Random, kinds: list[str], seconds: float, pause: tuple[float, float], takes: float
) -> Iterator[Strike]:
    at, deck = draw.uniform(*pause), list[str]()
    while kinds and at < seconds:
        deck = deck or draw.sample(kinds, len(kinds))
        kind = deck.pop()
        hold = draw.uniform(*FAULTS[kind].hold)
        yield Strike(round(at, 2), kind, draw.random(), round(hold, 2))
        at += hold + takes + draw.uniform(*pause)

"""Chaos by hand: `python -m tests.chaos --minutes 5 --setup kafka --seed 7 [--sabotage NAME]`."""

# ruff: noqa: T201 - it prints its findings
from __future__ import annotations

import argparse
import asyncio
import os
import sys
from random import SystemRandom

from choreo.observe.logs import configure_logging
from tests.chaos.arena import SETUPS
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import chaos, scenario
from tests.chaos.sabotage import SABOTAGES

_SAGAS_PER_SECOND = 40
_ACCEPTED = ("embedded", "kafka", "postgres", "transactional")


def main() -> int:
    """Run the rounds; 1 if one of them found something."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--setup", choices=SETUPS, action="append", help="the four that must hold unless given")
    options.add_argument(
        "--seed", type=int, default=int(os.environ.get("CHOREO_CHAOS_SEED", SystemRandom().randrange(10**6)))
    )
    options.add_argument(
        "--only", nargs="+", choices=FAULTS, default=list(FAULTS), help="kinds of faults; all unless given"
    )
    options.add_argument("--sabotage", choices=SABOTAGES, help="its scenario instead, with a build that is broken so")
    options.add_argument("--sound", action="store_true", help="the scenario with the build as it is")
    given = options.parse_args()
    configure_logging(level="error")
    if given.sabotage:
        outcome = asyncio.run(scenario(given.sabotage, broken=not given.sound))
        print(outcome.text(), outcome.logs, sep="\n", flush=True)
        return int(bool(outcome.verdict.findings))
    failed = False
    for name in given.setup or _ACCEPTED:
        print(f"== {name}, {given.minutes:g} minutes, seed {given.seed}", flush=True)
        seconds = given.minutes * 60
        outcome = asyncio.run(
            chaos(SETUPS[name], given.seed, seconds, int(seconds * _SAGAS_PER_SECOND), only=given.only)
        )
        print(outcome.text(), outcome.logs, flush=True)
        failed |= bool(outcome.verdict.findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

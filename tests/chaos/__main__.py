"""Chaos by hand: `python -m tests.chaos --minutes 5 --setup kafka --seed 7 [--sabotage NAME]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from random import SystemRandom

from tests.chaos.arena import SETUPS
from tests.chaos.rounds import chaos

_SAGAS_PER_SECOND = 40


def main() -> int:
    """Run the rounds; 1 if one of them found something."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--setup", choices=SETUPS, action="append", help="all unless given")
    options.add_argument(
        "--seed", type=int, default=int(os.environ.get("CHOREO_CHAOS_SEED", SystemRandom().randrange(10**6)))
    )
    given = options.parse_args()
    failed = False
    for name in given.setup or SETUPS:
        print(f"== {name}, {given.minutes:g} minutes, seed {given.seed}", flush=True)
        seconds = given.minutes * 60
        outcome = asyncio.run(chaos(SETUPS[name], given.seed, seconds, int(seconds * _SAGAS_PER_SECOND)))
        print(outcome.text(), outcome.logs, flush=True)
        failed |= bool(outcome.verdict.findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

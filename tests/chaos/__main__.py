"""Chaos by hand: `python -m tests.chaos --minutes 5 --setup kafka --seed 7 [--sabotage NAME]`, or `--flow shop --orders 10000`;
`--flow tracker --orders 10000` kills the tracker while it reads sagas of which all is known."""

# ruff: noqa: T201 - it prints its findings
from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from choreo.observe.logs import configure_logging
from tests.chaos.arena import SETUPS
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import chaos, scenario
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.shop import chaos as shop_chaos
from tests.chaos.shop_arena import SHOP_SETUPS
from tests.tracker.arena import SETUPS as TRACKER_SETUPS
from tests.tracker.arena import trial

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
    options.add_argument(
        "--flow", choices=["shop", "tracker"], help="the shop of services/; unless given, a flow made for checking"
    )
    options.add_argument("--orders", type=int, default=1000, help="of the shop; or how many sagas")
    options.add_argument(
        "--kills", type=int, help="of its processes; one for each 200 orders unless given, and 20 of the tracker"
    )
    given = options.parse_args()
    configure_logging(level="error")
    if given.flow == "shop":
        return in_the_shop(given)
    if given.flow == "tracker":
        return of_the_tracker(given)
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


def in_the_shop(given: argparse.Namespace) -> int:
    """The shop's rounds; 1 if one of them found something."""
    failed = False
    kills = given.kills or max(5, given.orders // 200)
    for name in given.setup or SHOP_SETUPS:
        print(f"== the shop, {name}, {given.orders:,} orders, seed {given.seed}", flush=True)
        outcome = asyncio.run(shop_chaos(SHOP_SETUPS[name], given.seed, given.orders, kills))
        print(outcome.text(), outcome.logs, flush=True)
        failed |= bool(outcome.findings)
    return int(failed)


def of_the_tracker(given: argparse.Namespace) -> int:
    """The tracker's trials; 1 if one of them found something."""
    failed = False
    for name in given.setup or TRACKER_SETUPS:
        print(f"== the tracker, {name}, {given.orders:,} sagas, seed {given.seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="choreo-truth-") as folder:
            outcome = asyncio.run(
                trial(name, Path(folder), seed=given.seed, sagas=given.orders, kills=given.kills or 20)
            )
        print(outcome.text(), flush=True)
        failed |= bool(outcome.findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

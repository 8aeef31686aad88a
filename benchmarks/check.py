"""`choreo check` over a generated choreography: 50 services, 200 events, all in one saga, with every kind of handler.

    python benchmarks/check.py [--services N] [--events N] [--seed N] [--json]

Services are written as modules, so that their sources are read too. Seconds for loading (imports, declarations) and for the
check itself, which is to stay under 2 s.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import Choreography
from choreo.check import check
from choreo.cli.load import load_services

UNHEARD = 2
"""Failures that do not cancel: so there is something to find."""
HEAD = "from choreo import Context, Event, Failure, Service\n"


def write(folder: Path, services: int, events: int, seed: int) -> None:
    """Events in layers: each is emitted by one handler, which reacts to earlier ones; every fifth is a failure."""
    chance = random.Random(seed)
    names = ["Begun", *(f"Event{number}" for number in range(1, events - 2)), "Completed", "Cancelled"]
    failures = {name for number, name in enumerate(names[1:-2]) if number % 5 == 4}
    lines = [HEAD]
    for number, name in enumerate(names):
        base = "Failure" if name in failures or name == "Cancelled" else "Event"
        ends = {"Completed": ', ends="completed"', "Cancelled": ', ends="failed"'}.get(name, "")
        lines.append(f'class {name}({base}, topic="topic-{number % services}", key="id"{ends}):\n    id: str\n')
    (folder / "events.py").write_text("\n".join(lines))
    modules = [[HEAD + "from big.events import *\n", f'service = Service("service-{n}")\n'] for n in range(services)]
    good = [name for name in names[1:-2] if name not in failures]
    for number, name in enumerate(good):
        _step(modules[number % services], number, name, ["Begun", *good[:number]], sorted(failures), chance)
    modules[0].append(_ending(good[-3:], sorted(failures)))
    for number, lines in enumerate(modules):
        (folder / f"service{number}.py").write_text("\n".join(lines))
    imports = "".join(f"from big import service{number}\n" for number in range(services))
    (folder / "__init__.py").write_text(
        f"{imports}services = [{', '.join(f'service{n}.service' for n in range(services))}]\n"
    )


def _step(
    module: list[str], number: int, name: str, earlier: list[str], failures: list[str], chance: random.Random
) -> None:
    near = earlier[-12:]
    emits = [name, *([failures[number // 4 % len(failures)]] if number % 4 == 3 else [])]
    returns = " | ".join(emits)
    sets = "state = ?" if number % 50 == 1 else "steps = steps + ?"  # few overwrite blindly
    body = (
        f'    await ctx.db.execute("UPDATE things SET {sets} WHERE id = ?", (1, event.id))\n    return {name}(id="1")\n'
    )
    if number % 6 == 5 and len(near) > 1:
        one, other = chance.sample(near, 2)
        module.append(
            f"@service.join({one}, {other}, unless=(Cancelled,))\nasync def step{number}(one: {one}, other: {other}) -> {returns}: ...\n"
        )
    else:
        cause = chance.choice(near)
        module.append(
            f"@service.on({cause})\nasync def step{number}(event: {cause}, ctx: Context) -> {returns}:\n{body}"
        )
    if number % 3 == 0:
        module.append(
            f"@service.compensates(step{number}, on=(Cancelled,))\nasync def undo{number}(done: {name}, failure: Failure) -> None: ...\n"
        )
    if number % 15 == 7:
        module.append(
            f'@service.deadline({name}, within="1h", unless=(Completed, Cancelled))\nasync def late{number}(event: {name}) -> Cancelled | None: ...\n'
        )


def _ending(last: list[str], failures: list[str]) -> str:
    heard = ", ".join(failures[UNHEARD:])
    return (
        f"@service.join({', '.join(last)}, unless=(Cancelled,))\n"
        f"async def complete({', '.join(f'e{n}: {name}' for n, name in enumerate(last))}) -> Completed | None: ...\n\n"
        f"@service.on({heard})\nasync def cancel(failure: Failure) -> Cancelled | None: ...\n"
    )


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="choreo-bench-") as name:
        folder = Path(name) / "big"
        folder.mkdir()
        write(folder, arguments.services, arguments.events, arguments.seed)
        sys.path.insert(0, name)
        importlib.invalidate_caches()
        start = time.perf_counter()
        choreography = Choreography.of(load_services(["big"]))
        loaded = time.perf_counter()
        report = check(choreography, "big")
        done = time.perf_counter()
    codes = Counter(finding.code for finding in report.findings)
    print(
        f"services {report.services}, handlers {report.handlers}, events {report.events}, findings {dict(sorted(codes.items()))}"
    )
    print(f"questions given up {report.gave_up}")
    return {"load": loaded - start, "check": done - loaded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds = measure(arguments)
    for what, took in seconds.items():
        print(f"{what:6} {took:6.2f} s")
    if arguments.json:
        print(json.dumps(seconds))


if __name__ == "__main__":
    main()

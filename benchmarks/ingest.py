"""Does a heavy tenant's tenfold file slow the others? How long files of usual size take, from arrival to the last row loaded.

    python benchmarks/ingest.py [--rate N] [--heavy-rate N] [--seconds N] [--rounds N] [--nice N] [--json]

services/ingest on real Kafka, one process for each service, as `choreo run` runs them, with SQLite stores. Light tenants' files
(2,000 rows) arrive at even intervals whatever becomes of those before. Each round (every other one backwards) runs them alone, then with a heavy tenant's files
of 20,000 rows beside them, which go to the pool for large files, and then once more with these in the same topics and
services as all others. The time of a file runs from the call that publishes it until a reader of `ingest.outcomes` has its
FileLoaded. Every row is parsed, checked, written to the log and to a table.
`others` are the cores that everything else on the machine used meanwhile: with all of them taken, delays are those of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import options
from bench import cpu_of
from fraud import Flow, Process, Watched, busy_seconds

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import Settings, connect
from choreo.log import open_log
from choreo.wire.ids import new_event_id

HERE = Path(__file__).parent
SCHEMAS = str(HERE.parent / "schemas")
CHOREO = str(Path(sys.executable).parent / "choreo")
WARM_UP = 10.0
"""Seconds of files that nobody counts, in each run."""
BROKER_WARM_UP = 20.0
"""Seconds of work that nobody measures: a broker just started keeps more than a core busy with its own compiler."""
LIGHT, TENFOLD = 2_000, 20_000
"""Rows of a light tenant's file, and of a heavy one's."""
TENANTS = 10
_KINDS = ("alone", "beside a heavy tenant with a pool of its own", "beside a heavy tenant without one")


class Plan(NamedTuple):
    """What is published in a run: light files a second, heavy ones a second, and whether these have a pool of their own."""

    rate: float
    heavy: float
    pool: bool


class Bench:
    """A broker, and files to be loaded."""

    def __init__(self, bootstrap: str, broker: Any, folder: Path, nice: int) -> None:
        self._bootstrap, self._broker, self._folder, self._nice = bootstrap, broker, folder, nice
        self._light = self._file("light", LIGHT)
        self._tenfold = self._file("tenfold", TENFOLD)

    def _file(self, name: str, rows: int) -> Path:
        from services.ingest.sample import write_file

        path = self._folder / f"{name}.csv"
        write_file(path, Random(7), rows)
        return path

    def run(self, plan: Plan, seconds: float) -> dict[str, Any]:
        """One run: milliseconds from arrival to loaded of the light files after the warm-up, and who used the processor."""
        with tempfile.TemporaryDirectory(prefix="choreo-ingest-") as stores:
            settings = Settings(
                log=f"kafka://{self._bootstrap}",
                store=f"sqlite:///{stores}/{{service}}.db",
                registry=SCHEMAS,
                create_topics=True,
            )
            asyncio.run(begin_now(settings))
            watched = Watched(self._bootstrap, "ingest.outcomes")
            try:
                with self._processes(settings, Path(stores)) as processes:
                    return asyncio.run(self._measured(plan, seconds, settings, watched, processes))
            finally:
                watched.close()

    @contextmanager
    def _processes(self, settings: Settings, folder: Path) -> Iterator[dict[str, Process]]:
        from services.ingest import services

        environment = {
            "PYTHONPATH": str(HERE.parent), "CHOREO_LOG": settings.log, "CHOREO_STORE": settings.store,
            "CHOREO_REGISTRY": SCHEMAS, "CHOREO_CREATE_TOPICS": "true", "CHOREO_LOG_LEVEL": "warning",
        }  # fmt: skip
        started: dict[str, Process] = {}
        try:
            for service in services:
                command = [CHOREO, "run", "services.ingest:{step}"]
                if service.name == "ingest-large" and self._nice:
                    command = ["nice", "-n", str(self._nice), *command]
                started[service.name] = Process(Flow("", tuple(command)), service.name, folder, environment)
            yield started
        finally:
            for process in started.values():
                process.stop()

    async def _measured(
        self, plan: Plan, seconds: float, settings: Settings, watched: Watched, processes: dict[str, Process]
    ) -> dict[str, Any]:
        async with connect(settings, source="bench") as bus:
            first = await bus.publish(self._arrived(self._light, "light-0"))
            await asyncio.to_thread(watched.wait, [first.encode()])
            busy, ours, begun = busy_seconds(), self._ours(processes), time.monotonic()
            heavy = asyncio.ensure_future(self._heavy(bus, plan, seconds + WARM_UP))
            published = await self._files(bus, plan.rate, seconds + WARM_UP)
            heavy_published = await heavy
            await asyncio.to_thread(watched.wait, [*published, *heavy_published])
            spent = time.monotonic() - begun
        cpu = {name: used - ours[name] for name, used in self._ours(processes).items()}
        cores = {name.removeprefix("ingest-"): round(used / spent, 2) for name, used in cpu.items()}
        others = busy_seconds() - busy - sum(cpu.values())
        late = max((watched.came[saga] - at for saga, at in heavy_published.items() if saga in watched.came), default=0)
        return report(published, watched, since=begun + WARM_UP) | {
            "heavy files": len(heavy_published),
            "slowest heavy": round(late * 1000, 1),
            "cores": cores | {"others": round(others / spent, 2)},
        }

    async def _files(self, bus: Any, rate: float, seconds: float) -> dict[bytes, float]:
        """Publish light files at even intervals; when each was, by its saga."""
        published: dict[bytes, float] = {}
        start = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            saga = new_event_id()
            published[saga.encode()] = time.monotonic()
            await bus.publish(self._arrived(self._light, f"light-{number % TENANTS}"), event_id=saga)
        return published

    async def _heavy(self, bus: Any, plan: Plan, seconds: float) -> dict[bytes, float]:
        published: dict[bytes, float] = {}
        start = time.monotonic()
        for number in range(int(plan.heavy * seconds)):
            await asyncio.sleep(max(0.0, start + number / plan.heavy - time.monotonic()))
            saga = new_event_id()
            published[saga.encode()] = time.monotonic()
            arrived = self._arrived(self._tenfold, "heavy")
            # A file that says it is small goes where all go; nobody else looks at its size.
            await bus.publish(arrived if plan.pool else arrived.model_copy(update={"size": 1}), event_id=saga)
        return published

    def _arrived(self, path: Path, tenant: str) -> Any:
        from services.ingest.events import FileArrived

        return FileArrived(file_id=new_event_id(), tenant=tenant, path=str(path), size=path.stat().st_size)

    def _ours(self, processes: dict[str, Process]) -> dict[str, float]:
        used = {name: cpu_of(each.process) for name, each in processes.items()}
        used["publisher"] = time.process_time()
        if self._broker is not None:
            used["broker"] = cpu_of(self._broker)
        return used


async def begin_now(settings: Settings) -> None:
    """Fresh stores that begin where the log ends now: it holds what earlier runs have left."""
    from services.ingest import services
    from services.trial import begin

    async with open_log(settings.log) as log:
        await begin(services, settings, log)


def report(published: dict[bytes, float], watched: Watched, *, since: float) -> dict[str, Any]:
    taken = sorted(
        (watched.came[saga] - at) * 1000 for saga, at in published.items() if saga in watched.came and at >= since
    )
    cuts = statistics.quantiles(taken, n=100)
    return {
        "files": len(taken),
        "p50": round(cuts[49], 1),
        "p95": round(cuts[94], 1),
        "slowest": round(taken[-1], 1),
        "lost": sum(saga not in watched.came for saga in published),
    }


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    from tests.servers.kafka import KafkaServer

    rate, heavy = arguments.rate, arguments.heavy_rate
    plans = dict(zip(_KINDS, (Plan(rate, 0, True), Plan(rate, heavy, True), Plan(rate, heavy, False)), strict=True))
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in plans}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-ingest-")))
        server = None if arguments.kafka else stack.enter_context(KafkaServer(lasting=True))
        bench = Bench(arguments.kafka or server.bootstrap, server, folder, arguments.nice)
        bench.run(Plan(rate, heavy, True), BROKER_WARM_UP)
        for number in range(arguments.rounds):
            for kind in list(plans)[:: -1 if number % 2 else 1]:  # nobody is always the first
                found[kind].append(bench.run(plans[kind], arguments.seconds))
    return found


def lines(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    alone = statistics.median(run["p95"] for run in found[_KINDS[0]])
    for kind, runs in found.items():
        for run in runs:
            yield (
                f"{kind:46} p50 {run['p50']:7.1f}  p95 {run['p95']:7.1f}  slowest {run['slowest']:8.1f} ms  "
                f"lost {run['lost']}  ({run['files']:,} files; {run['heavy files']} heavy, slowest {run['slowest heavy']:.0f} ms)"
            )
            yield f"{'':46} cores used: {', '.join(f'{name} {used}' for name, used in run['cores'].items())}"
        p95 = statistics.median(run["p95"] for run in runs)
        yield f"{kind:46} p95, median of {len(runs)}: {p95:.1f} ms, {p95 / alone:.2f} times that alone"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rate", type=float, default=5, help="light files a second, of all tenants together")
    parser.add_argument("--heavy-rate", type=float, default=0.25, help="heavy files a second")
    parser.add_argument("--seconds", type=float, default=30, help="measured seconds of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turns")
    parser.add_argument(
        "--nice", type=int, default=10, help="the priority of the pool for large files; 0: as all others"
    )
    arguments = parser.parse_args()
    found = measure(arguments)
    options.tell(arguments, found, lines(found))


if __name__ == "__main__":
    main()

"""How soon does a card transaction get its verdict, at 2,000 a second, and is one lost when the scorer is killed?

    python benchmarks/fraud.py [--rate N] [--seconds N] [--rounds N] [--client NAME=VALUE ...] [--json]

services/fraud on real Kafka, one process for each service, as `choreo run` runs them, with SQLite stores and one line of log
for each verdict. Transactions are published at even intervals whatever becomes of those before. The time of one runs from the
call that publishes it until a reader of `fraud.verdicts` has its verdict. Beside it the same flow written by hand
(fraud_by_hand.py), in the same run. Then once more with choreo, the scorer killed (-9) in the middle and started again.
`others` are the cores that everything else on the machine used meanwhile: with all of them taken, delays are those of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import options
from bench import cpu_of
from confluent_kafka import Consumer, Producer, TopicPartition
from fraud_by_hand import PREFIX

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo.log import Topic, open_log
from choreo.log.port import NewRecord
from choreo.runtime.run import settle_garbage_collector

HERE = Path(__file__).parent
PARTITIONS = 4
TOPICS = ("fraud.transactions", "fraud.scores", "fraud.verdicts")
SERVICES = ("scorer", "verdicts", "cases")
WARM_UP = 10.0
"""Seconds of transactions that nobody counts, for all alike."""
BROKER_WARM_UP = 20.0
"""Seconds of work, beside the warm-up, that nobody measures: a broker just started keeps more than a core busy with its own
compiler."""
PATIENCE = 60.0
_KILL_AT, _DEAD_FOR = 1 / 3, 1.0
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
"""A killed member's partitions are given to others after six seconds."""
GATHER = ["fetch.min.bytes=65536", "fetch.wait.max.ms=10"]
"""The broker answers after ten milliseconds with what has come, instead of at once with a record or two: half of the CPU time,
for the broker too."""


class Flow(NamedTuple):
    """Who handles the transactions: what its topics' names begin with, and the command of a service."""

    prefix: str
    command: tuple[str, ...]


class Watched:
    """Verdicts as they come, by the id of their transaction's saga.

    Attributes:
        came: when the first verdict of each came.
        verdicts: event ids of the verdicts of each; more than one is a double.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.came: dict[bytes, float] = {}
        self.verdicts: dict[bytes, set[bytes]] = {}
        settings = {"bootstrap.servers": bootstrap, "group.id": "fraud-reader", "enable.auto.commit": False}
        self._consumer = Consumer(settings)
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, 10)[1]
        self._consumer.assign(places)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ending.is_set():
            first = self._consumer.poll(0.1)
            if first is None or first.error():
                continue
            now = time.monotonic()
            for message in [first, *self._consumer.consume(10_000, 0)]:
                about = dict(message.headers())
                saga = about["ce_correlationid"]
                self.came.setdefault(saga, now)
                self.verdicts.setdefault(saga, set()).add(about["ce_id"])

    def wait(self, sagas: Sequence[bytes]) -> None:
        """Until all have their verdict, or no further one has come for a while."""
        known, moved = -1, time.monotonic()
        while any(saga not in self.came for saga in sagas) and time.monotonic() - moved < PATIENCE:
            if len(self.came) != known:
                known, moved = len(self.came), time.monotonic()
            time.sleep(0.05)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._consumer.close()


class Process:
    """One service's process, its log in a file."""

    def __init__(self, flow: Flow, step: str, folder: Path, environment: dict[str, str]) -> None:
        self._command = [part.format(step=step) for part in flow.command]
        self._folder, self._environment = folder, environment
        self.log = folder / f"{step}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._folder, env=os.environ | self._environment, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


class Bench:
    """A broker, and the transactions ready to be published."""

    def __init__(self, bootstrap: str, broker: Any, rate: int, seconds: float, client: dict[str, str]) -> None:
        self.bootstrap, self._broker, self._rate, self._seconds = bootstrap, broker, rate, seconds
        self._client = client
        self._log = f"kafka://{bootstrap}"

    async def records(self) -> list[NewRecord]:
        """The transactions of one run, each the start of a saga."""
        from choreo.events import Metadata
        from choreo.runtime.clock import rfc3339
        from choreo.wire import Codec, open_registry
        from choreo.wire.ids import new_event_id
        from services.fraud.events import TransactionMade
        from services.fraud.sample import transactions

        codec = Codec(open_registry(str(HERE.parent / "schemas")))
        await codec.prepare(writes=[TransactionMade], reads=[])
        made = []
        for each in transactions(7, int(self._rate * (self._seconds + WARM_UP))):
            saga, now_ms = new_event_id(), time.time_ns() // 1_000_000
            about = Metadata(saga, "TransactionMade", "bench", rfc3339(now_ms), saga)
            made.append(codec.encode(each, about, timestamp=now_ms))
        return made

    async def _topics(self, prefix: str) -> None:
        async with open_log(self._log) as log:
            await log.create_topics([Topic(name=prefix + name, partitions=PARTITIONS) for name in TOPICS])

    @contextmanager
    def _running(self, flow: Flow) -> Iterator[dict[str, Process]]:
        with tempfile.TemporaryDirectory(prefix="choreo-fraud-") as folder:
            environment = {
                "PYTHONPATH": f"{HERE}:{HERE.parent}",
                "CHOREO_LOG": self._log, "CHOREO_LOG_FORMAT": "json", "CHOREO_CREATE_TOPICS": "true",
                "CHOREO_STORE": f"sqlite:///{folder}/{{service}}.db", "CHOREO_REGISTRY": str(HERE.parent / "schemas"),
                "CHOREO_KAFKA": json.dumps(QUICK | self._client),
            }  # fmt: skip
            if flow is CHOREO:
                asyncio.run(begin_now(self._log, environment["CHOREO_STORE"]))
            started = {step: Process(flow, step, Path(folder), environment) for step in SERVICES}
            try:
                yield started
            finally:
                for process in started.values():
                    process.stop()

    def run(self, flow: Flow, *, kill: bool = False) -> dict[str, Any]:
        """One run; see `report`."""
        asyncio.run(self._topics(flow.prefix))
        records = asyncio.run(self.records())
        watched = Watched(self.bootstrap, f"{flow.prefix}fraud.verdicts")
        try:
            with self._running(flow) as processes:
                publisher = Publisher(self.bootstrap, flow.prefix, self._rate)
                publisher.wait_for_first(records[0], watched)
                settle_garbage_collector(50_000)
                busy, ours = busy_seconds(), self._ours(processes)
                begun = time.monotonic()
                killer = threading.Timer(WARM_UP + self._seconds * _KILL_AT, restart, [processes["scorer"]])
                if kill:
                    killer.start()
                publisher.publish(records[1:])
                published = time.monotonic()
                killer.cancel() if not kill else killer.join()
                sagas = [saga_of(record) for record in records]
                watched.wait(sagas)
                spent = time.monotonic() - begun
                cpu = {name: used - ours.get(name, 0.0) for name, used in self._ours(processes).items()}
                others = busy_seconds() - busy - sum(cpu.values())
                late = time.monotonic() - published
                found = report(publisher.published, watched, sagas, since=begun + WARM_UP)
        finally:
            watched.close()
        cores = {name: round(used / spent, 2) for name, used in (*cpu.items(), ("others", others))}
        services = sum(cpu[step] for step in SERVICES)
        return found | {
            "cores": cores,
            "cpu": round(services / len(sagas) * 100_000, 1),
            "until the last": round(late, 1),
        }

    def _ours(self, processes: dict[str, Process]) -> dict[str, float]:
        used = {name: cpu_of(each.process) for name, each in processes.items()}
        used["load"] = time.process_time()
        if self._broker is not None:
            used["broker"] = cpu_of(self._broker)
        return used


class Publisher:
    """Publishes at even intervals.

    Attributes:
        published: when each saga's transaction was handed to the client.
    """

    def __init__(self, bootstrap: str, prefix: str, rate: int) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1})
        self._prefix, self._rate = prefix, rate
        self.published: dict[bytes, float] = {}

    def publish(self, records: Sequence[NewRecord]) -> None:
        start = time.monotonic()
        for number, record in enumerate(records):
            if (wait := start + number / self._rate - time.monotonic()) > 0:
                self._producer.poll(0)
                time.sleep(wait)
            self._publish(record)
        self._producer.flush()

    def _publish(self, record: NewRecord) -> None:
        self.published[saga_of(record)] = time.monotonic()
        self._producer.produce(self._prefix + record.topic, record.value, record.key, headers=list(record.headers))

    def wait_for_first(self, record: NewRecord, watched: Watched) -> None:
        """All services are at work once this one has its verdict."""
        self._publish(record)
        self._producer.flush()
        watched.wait([saga_of(record)])
        if not watched.came:
            raise SystemExit("the services give no verdict")


async def begin_now(log_url: str, stores: str) -> None:
    """Fresh stores that begin where the log ends now: it holds what earlier runs have left."""
    from choreo import Settings
    from services.fraud import services
    from services.trial import begin

    async with open_log(log_url) as log:
        await begin(services, Settings(log=log_url, store=stores, create_topics=True), log)


def saga_of(record: NewRecord) -> bytes:
    return dict(record.headers)["ce_correlationid"]


def restart(process: Process) -> None:
    process.kill()
    time.sleep(_DEAD_FOR)
    process.start()


def report(published: dict[bytes, float], watched: Watched, sagas: Sequence[bytes], *, since: float) -> dict[str, Any]:
    """Milliseconds from publication to verdict of those published since then; how many are lost, how many doubled, in all."""
    counted = [saga for saga in sagas if saga in watched.came and published[saga] >= since]
    taken = sorted((watched.came[saga] - published[saga]) * 1000 for saga in counted)
    cuts = statistics.quantiles(taken, n=1000)
    return {
        "transactions": len(taken),
        "p50": round(cuts[499], 1),
        "p95": round(cuts[949], 1),
        "p99": round(cuts[989], 1),
        "p99.9": round(cuts[998], 1),
        "slowest": round(taken[-1], 1),
        "lost": sum(saga not in watched.came for saga in sagas),
        "doubled": sum(len(ids) > 1 for ids in watched.verdicts.values()),
    }


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used, and what a hypervisor has taken."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


CHOREO = Flow("", (str(Path(sys.executable).parent / "choreo"), "run", "services.fraud:fraud-{step}"))


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from tests.servers.kafka import KafkaServer

    reports = []
    client = dict(each.split("=", 1) for each in arguments.client)
    with ExitStack() as stack:
        server = None if arguments.kafka else stack.enter_context(KafkaServer(lasting=True))
        bootstrap = arguments.kafka or server.bootstrap
        program = str(HERE / "fraud_by_hand.py")
        hand = Flow(PREFIX, (sys.executable, program, "{step}", bootstrap, "by-hand"))
        bench = Bench(bootstrap, server, arguments.rate, arguments.seconds, client)
        Bench(bootstrap, server, arguments.rate, BROKER_WARM_UP, client).run(hand)
        for _ in range(arguments.rounds):
            reports += [{"flow": "by hand"} | bench.run(hand), {"flow": "choreo"} | bench.run(CHOREO)]
        reports.append({"flow": "choreo, scorer killed"} | bench.run(CHOREO, kill=True))
    return reports


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="transactions a second")
    parser.add_argument("--seconds", type=float, default=30, help="measured seconds of each run")
    parser.add_argument("--rounds", type=int, default=1, help="undisturbed runs of each")
    parser.add_argument(
        "--client",
        nargs="*",
        default=GATHER,
        metavar="NAME=VALUE",
        help="client settings of choreo's services, instead of those that its README advises",
    )
    arguments = parser.parse_args()
    reports = measure(arguments)
    options.tell(arguments, reports, lines(reports))


def lines(reports: list[dict[str, Any]]) -> Iterator[str]:
    hand = None
    for found in reports:
        ratio = ""
        if found["flow"] == "by hand":
            hand = found
        elif found["flow"] == "choreo" and hand is not None:
            ratio = f"  p99 is {found['p99'] / hand['p99']:.1f} times that by hand"
        yield (
            f"{found['flow']:22} p50 {found['p50']:7.1f}  p95 {found['p95']:7.1f}  p99 {found['p99']:7.1f}  "
            f"slowest {found['slowest']:8.1f} ms  lost {found['lost']}  doubled {found['doubled']}  "
            f"({found['transactions']:,} transactions){ratio}"
        )
        cores = ", ".join(f"{name} {used}" for name, used in found["cores"].items())
        yield f"{'':22} {found['cpu']} CPU s of the services per 100,000 transactions; cores used: {cores}"


if __name__ == "__main__":
    main()

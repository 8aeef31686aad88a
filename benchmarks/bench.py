"""The bench: servers, the orders that every contestant reads, and the reader that counts what comes out.

A contestant is a process. Its time runs from its first order until a reader of the output, to whom only committed
records show, has seen as many payments as there were orders; its CPU seconds are those of the same span.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition
from job import FIRST

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
PARTITIONS = 4
PATIENCE = 120.0
_CHUNK = 1000
_QUIET = 75.0
"""Seconds without a record after which a contestant that was killed and restarted has nothing more to say: longer than
the group's session timeout, and than a transaction that nobody ends (60 s)."""
_STOP = 10.0


class Contestant(NamedTuple):
    """A name for the table, and the command that works until SIGTERM.

    `prepare` is given the address of its store and the service's name before it starts.
    """

    name: str
    command: Sequence[str]
    store: str = ""
    embedded: bool = False
    prepare: Callable[[str, str], None] | None = None


class Run(NamedTuple):
    """What one run of a contestant took: seconds, and the most memory it had (MB)."""

    wall: float
    cpu: float
    peak: float


class Bench:
    """Orders in a topic, ready to be handled by one contestant after the other.

    Args:
        kafka: a running broker; started for this bench unless given.
    """

    def __init__(self, events: int, stack: ExitStack, kafka: str | None = None) -> None:
        from tests.servers.kafka import KafkaServer

        self.events = events
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-")))
        self.bootstrap = kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
        self._logs = {False: f"kafka://{self.bootstrap}", True: f"sqlite:///{self.folder}/log.db"}
        self._filled: set[str] = set()
        run = uuid.uuid4().hex[:8]
        self._told: dict[str, Any] = {
            "bootstrap": self.bootstrap, "orders": f"bench-orders-{run}", "payments": f"bench-payments-{run}",
            "group": "", "schemas": str(self.folder / "schemas"), "payment_schema_id": 0, "store": "", "log": "",
        }  # fmt: skip
        os.environ["CHOREO_BENCH"] = json.dumps(self._told)
        asyncio.run(self._register())

    async def _register(self) -> None:
        from orders import OrderPlaced, PaymentCharged

        from choreo.wire import open_registry
        from choreo.wire.schema import schema_of

        registry = open_registry(self._told["schemas"])
        for event in (OrderPlaced, PaymentCharged):
            subject = f"{event.contract.topics[0]}-{event.contract.type_name}"
            self._told["payment_schema_id"] = await registry.register(subject, schema_of(event))

    async def _fill(self, url: str) -> None:
        from orders import order

        import choreo
        from choreo.log import Topic, open_log

        async with open_log(url) as log:
            topics = [Topic(name=self._told[name], partitions=PARTITIONS) for name in ("orders", "payments")]
            await log.create_topics(topics)
            async with choreo.connect(choreo.Settings(log=url, registry=self._told["schemas"]), log=log) as bus:
                for start in range(0, self.events, _CHUNK):
                    await bus.publish_many([order(n) for n in range(start, min(self.events, start + _CHUNK))])

    def _prepared(self, contestant: Contestant) -> dict[str, Any]:
        """What this run of the contestant is told."""
        url, group = self._logs[contestant.embedded], f"bench-{uuid.uuid4().hex[:8]}"
        if url not in self._filled:
            asyncio.run(self._fill(url))
            self._filled.add(url)
        store = contestant.store.format(folder=self.folder)
        if contestant.prepare is not None:
            contestant.prepare(store.replace("{service}", group), group)
        return self._told | {"group": group, "log": url, "store": store}

    def run(self, contestant: Contestant, events: int | None = None) -> Run:
        """One run of a contestant over the first so many orders, or all."""
        told = self._prepared(contestant)
        with self._output(contestant) as output, started(contestant, told) as process:
            first = _first_of(process)
            output.wait(lambda: output.seen >= (events or self.events))
            return Run(output.last - first[FIRST], cpu_of(process) - first["cpu"], peak_of(process))

    def killed(self, contestant: Contestant) -> tuple[int, int]:
        """A run that is killed (-9) in the middle and started again: how many payments are lost, how many doubled.

        Copies with the same event id are one payment: whoever knows ids drops them. Without ids each copy is one more.
        """
        told = self._prepared(contestant)
        with self._output(contestant) as output:
            with started(contestant, told) as process:
                output.wait(lambda: output.seen >= self.events * 2 // 3)
                process.kill()
            with started(contestant, told):
                output.wait(lambda: len(output.keys) >= self.events, quiet=_QUIET)
                output.wait(lambda: False, quiet=2.0)  # doubles may follow
        return self.events - len(output.keys), len(output.payments) - len(output.keys)

    def _output(self, contestant: Contestant) -> AbstractContextManager[Output]:
        return closing(Embedded(self._logs[True], self._told["payments"]) if contestant.embedded else self._payments())

    def _payments(self) -> Payments:
        return Payments(self.bootstrap, self._told["payments"])


class Output:
    """Reads what contestants wrote since it was made.

    Attributes:
        seen: how many records.
        keys: of all of them.
        payments: keys with event ids.
        last: when the last one came.
    """

    def __init__(self) -> None:
        self.seen, self.last = 0, time.monotonic()
        self.keys: set[bytes] = set()
        self.payments: set[tuple[bytes, bytes]] = set()

    def read(self) -> list[tuple[bytes, bytes]]:
        """Key and event id of what came, if need be after a short wait."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what it holds."""

    def wait(self, enough: Callable[[], bool], quiet: float = PATIENCE) -> None:
        """Read until it is enough, or nothing has come for so many seconds."""
        self.last = time.monotonic()
        while not enough():
            if payments := self.read():
                self.last = time.monotonic()
                self.seen += len(payments)
                self.keys.update([key for key, _ in payments])
                self.payments.update(payments)
            elif time.monotonic() - self.last > quiet:
                if quiet == PATIENCE:
                    raise SystemExit(f"nothing more came for {quiet:.0f} s, after {self.seen} records")
                return


class Payments(Output):
    """The payments' topic of Kafka, committed transactions only."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__()
        settings = {"bootstrap.servers": bootstrap, "group.id": "bench-reader", "enable.auto.commit": False}
        self._consumer = Consumer({**settings, "isolation.level": "read_committed", "fetch.wait.max.ms": 20})
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, 10)[1]
        self._consumer.assign(places)

    def read(self) -> list[tuple[bytes, bytes]]:
        return [
            (
                message.key(),
                dict(message.headers() or ()).get("ce_id") or b"%d %d" % (message.partition(), message.offset()),
            )
            for message in self._consumer.consume(10_000, 0.02)
            if not message.error()
        ]

    def close(self) -> None:
        self._consumer.close()


class Embedded(Output):
    """The payments' topic of an embedded log; only counted."""

    def __init__(self, url: str, topic: str) -> None:
        super().__init__()
        self._runner, self._url, self._topic = asyncio.Runner(), url, topic
        self._runner.run(self._open())

    async def _open(self) -> None:
        from choreo.log import open_log

        self._log = open_log(self._url)
        await self._log.__aenter__()
        self._end = await self._ends()

    async def _ends(self) -> int:
        from choreo.log import TopicPartition

        ends = await self._log.end_offsets([TopicPartition(self._topic, number) for number in range(PARTITIONS)])
        await asyncio.sleep(0.01)
        return sum(ends.values())

    def read(self) -> list[tuple[bytes, bytes]]:
        before, self._end = self._end, self._runner.run(self._ends())
        return [(b"", b"")] * (self._end - before)

    def close(self) -> None:
        self._runner.run(self._log.__aexit__())
        self._runner.close()


@contextmanager
def started(contestant: Contestant, told: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The contestant at work, stopped at the end."""
    environment = os.environ | {"CHOREO_BENCH": json.dumps(told), "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    process = subprocess.Popen(contestant.command, env=environment, stdout=subprocess.PIPE, cwd=HERE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def _first_of(process: subprocess.Popen[bytes]) -> dict[str, float]:
    for line in process.stdout:  # type: ignore[union-attr]
        if line.startswith(b"{") and FIRST.encode() in line:
            found: dict[str, float] = json.loads(line)
            return found
    raise SystemExit(f"a contestant ended with {process.wait()} before its first order")


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """The most memory (resident) that a process has had, in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds a process has used, all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""One set-up at work: servers, proxies, and the services as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple, Self

from choreo import Settings, connect
from choreo.choreography import Choreography
from choreo.cli.common import UNREACHABLE
from choreo.errors import LogUnavailableError
from choreo.log import TopicPartition, open_log
from choreo.runtime.run import ensure_topics
from tests.chaos.evidence import Evidence, gather
from tests.chaos.feed import Feed
from tests.chaos.inside import END, MARK
from tests.chaos.world import services
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.postgres import PostgresServer
from tests.servers.process import START_TIMEOUT, Server, wait_until
from tests.servers.proxy import Proxy

CHECKOUT = Path(__file__).parents[2]
KAFKA = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}
GROUPS = (("intake", "pay", "sink"), ("ledger", "pack"))
"""Which services share a process."""


_QUIET = 4
"""Looks at the log, two a second, that find it as it was."""


class Setup(NamedTuple):
    """One of the set-ups that must hold: what the log is, where stores are, how many processes of each group."""

    name: str
    log: str
    store: str = "sqlite"
    transactional: bool = False
    instances: int = 2

    @property
    def stores(self) -> list[str]:
        """The services that have a store."""
        return ["sink"] if self.transactional else [service.name for service in services]


SETUPS = {
    setup.name: setup
    for setup in (
        Setup("embedded", "sqlite"),
        Setup("kafka", "kafka"),
        Setup("postgres", "cluster", "postgres", instances=3),
        Setup("transactional", "kafka", transactional=True),
        Setup("embedded-postgres", "sqlite", "postgres"),
        Setup("kafka-postgres", "kafka", "postgres", instances=3),
        Setup("embedded-transactional", "sqlite", transactional=True),
    )
}


class Child(Server):
    """One process with some of the services: `choreo run`, by way of `tests.chaos.child`."""

    def __init__(self, names: tuple[str, ...], environment: dict[str, str]) -> None:
        self.name = f"chaos-{names[0]}"
        super().__init__()
        self.services = names
        self.clock = self.folder / "clock"
        self._environment = {**environment, "PYTHONPATH": str(CHECKOUT), "CHOREO_CHAOS_CLOCK": str(self.clock)}

    def command(self) -> list[str]:
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        targets = [f"tests.chaos.world:{name}" for name in self.services]
        return ["env", *variables, sys.executable, "-m", "tests.chaos.child", "run", *targets]

    def ready(self) -> bool:
        """Always: nobody waits for a service, its events do."""
        return True

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def has_begun(self) -> bool:
        """Whether all its services are at work."""
        return self.log_tail(1000).count('"service started"') >= len(self.services)

    def has_partitions(self) -> bool:
        """Whether each of its services has been given some."""
        told = self.log_tail(1000).splitlines()
        return all(
            any("partitions assigned" in line and f'"{name}"' in line for line in told) for name in self.services
        )

    def tell(self) -> None:
        """Let it write into its log what it is at; one that hangs in a call does not."""
        told = self.log_file.read_text(errors="replace").count(END)
        if self.is_running:
            os.kill(self.pid, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: self.log_file.read_text(errors="replace").count(END) > told, 5)

    @property
    def ended(self) -> int | None:
        """Its exit code, if it has ended and nobody here has killed it."""
        return None if self._process is None else self._process.poll()


class Arena:
    """A set-up, started: `async with Arena(setup, folder, draw) as arena`.

    Attributes:
        children: all service processes.
        feed: publishes past the proxies.
        kafka, cluster, postgres: the servers that there are.
        proxies: between the services and those servers.
        died: which processes ended by themselves, for other reasons than a server that cannot be reached.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        draw: Random,
        *,
        environment: dict[str, str] | None = None,
        plain: bool = False,
    ) -> None:
        self.setup, self.folder = setup, folder
        self.kafka: KafkaServer | None = None
        self.cluster: KafkaCluster | None = None
        self.postgres: PostgresServer | None = None
        self.proxies: list[Proxy] = []
        self.children: list[Child] = []
        self.mended = folder / "mended"
        self._draw, self._plain, self._extra = draw, plain, environment or {}
        self._servers, self._exit = ExitStack(), AsyncExitStack()
        self.died: list[str] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._start_servers)
            self._exit.callback(self._servers.close)
            settings = self.settings(direct=True)
            self.log = await self._exit.enter_async_context(open_log(settings.log, settings.kafka))
            await ensure_topics(self.log, Choreography.of(services).topics, create=True)
            bus = await self._exit.enter_async_context(connect(settings, log=self.log))
            self.feed = Feed(bus, self.log, self._draw, plain=self._plain)
            self._exit.push_async_callback(self.feed.close)
            for names in GROUPS * self.setup.instances:
                self.children.append(self._exit.enter_context(self.child(names)))
            await self._started()
            supervising = asyncio.create_task(self.supervise())
            self._exit.callback(supervising.cancel)
        except BaseException:
            self._servers.close()
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit.aclose()

    async def _started(self) -> None:
        """Wait until all services have begun to work, so that no fault is wasted on their imports."""
        for child in self.children:
            await asyncio.to_thread(wait_until, child.has_begun, START_TIMEOUT)

    def _start_servers(self) -> None:
        enter = self._servers.enter_context
        if self.setup.log == "kafka":
            self.proxies.append(enter(Proxy()))
            self.kafka = enter(KafkaServer(proxy=self.proxies[0], lasting=True))
        if self.setup.log == "cluster":
            self.proxies += [enter(Proxy()) for _ in range(3)]
            self.cluster = enter(KafkaCluster(proxies=self.proxies))
        if self.setup.store == "postgres":
            self.postgres = enter(PostgresServer())
            self.proxies.append(enter(Proxy(self.postgres.port)))

    def settings(self, *, direct: bool) -> Settings:
        """How to reach the log and the stores: past the proxies, or through them."""
        log = f"sqlite:///{self.folder}/log.db"
        if self.kafka is not None:
            log = f"kafka://{self.kafka.bootstrap if direct else self.proxies[0].address}"
        if self.cluster is not None:
            log = f"kafka://{self.cluster.bootstrap if direct else self.cluster.proxied_bootstrap}"
        store = f"sqlite:///{self.folder}/{{service}}.db"
        if self.postgres is not None:
            port, through = str(self.postgres.port), str(self.proxies[-1].port)
            store = self.postgres.url if direct else self.postgres.url.replace(f":{port}/", f":{through}/")
        kafka = {} if log.startswith("sqlite") or direct else KAFKA
        registry = str(self.folder / "schemas")
        return Settings(log=log, store=store, registry=registry, create_topics=True, kafka=kafka)

    @contextmanager
    def child(self, names: tuple[str, ...]) -> Iterator[Child]:
        """One more process with these services."""
        settings = self.settings(direct=False)
        environment = {
            "CHOREO_LOG": settings.log,
            "CHOREO_STORE": settings.store,
            "CHOREO_REGISTRY": settings.registry,
            "CHOREO_KAFKA": json.dumps(settings.kafka),
            "CHOREO_CREATE_TOPICS": "true",
            "CHOREO_LOG_FORMAT": "json",
            "CHOREO_CHAOS_MENDED": str(self.mended),
            "CHOREO_CHAOS_TRANSACTIONAL": "1" if self.setup.transactional else "",
            **self._extra,
        }
        with Child(names, environment) as child:
            yield child

    def effects(self, service: str) -> int:
        """How many rows its handlers have in its SQLite store."""
        with closing(sqlite3.connect(self.file_of(service))) as store:
            return int(store.execute("SELECT count(*) FROM effects").fetchone()[0])

    def calls(self, child: Child) -> int:
        """How many calls of handlers a process has written down, if it was told to."""
        journal = self.folder / str(child.pid)
        return len(journal.read_text().splitlines()) if journal.exists() else 0

    def file_of(self, service: str) -> Path:
        """The SQLite file of a service's store; the log's for the name `log`."""
        return self.folder / f"{service}.db"

    async def heal(self) -> None:
        """Undo all faults: everything runs, everything is connected, the clocks are right."""
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.restore)
        for server in (self.kafka, self.cluster, self.postgres):
            if server is not None:
                await asyncio.to_thread(server.ensure_running)
        for child in self.children:
            child.clock.write_text("0")
            child.thaw()

    async def evidence(self) -> Evidence:
        """All that is in the log and the stores now."""
        store = self.settings(direct=True).store
        stores = {name: store.replace("{service}", name) for name in self.setup.stores}
        return await gather(self.log, self.settings(direct=True).registry, stores)

    async def supervise(self) -> None:
        """Start again what has ended by itself, as any operator's supervisor does, until cancelled."""
        while True:
            for child in self.children:
                if child.ended is not None:
                    if child.ended != UNREACHABLE:
                        self.died.append(f"{child.name} ended by itself with {child.ended}: {child.log_tail(2)}")
                    child.start()
            await asyncio.sleep(1.0)

    async def troubles(self, shown: int = 3) -> str:
        """What each process is at, and its last warnings and errors; all there is of evidence goes where CHOREO_CHAOS_KEEP says."""
        await asyncio.gather(*(asyncio.to_thread(child.tell) for child in self.children))
        lines = []
        for child in self.children:
            told = child.log_file.read_text(errors="replace").splitlines()
            state = [line for line in told if line.startswith(MARK)]
            bad = [
                line
                for line in told
                if ('"level": "error"' in line and "gave up" not in line)
                or "Traceback" in line
                or not line.startswith(("{", MARK))
            ]
            lines += [f"{child.name} {child.folder.name}:", *(f"  {line[:600]}" for line in (*bad[-shown:], *state))]
        if keep := os.environ.get("CHOREO_CHAOS_KEEP"):
            shutil.copytree(self.folder, keep, dirs_exist_ok=True)
            for process in (*self.children, *filter(None, (self.kafka, self.postgres))):
                shutil.copy(process.log_file, Path(keep, f"{process.folder.name}.log"))
            if self.kafka is not None:  # `kafka-dump-log` shows what it wrote down
                shutil.copytree(self.kafka.folder, Path(keep, self.kafka.folder.name), dirs_exist_ok=True)
            evidence = await self.evidence()
            told = [each for events in evidence.events.values() for each in events]
            told += [effect for rest in evidence.rests.values() for effect in rest.effects]
            await asyncio.to_thread(Path(keep, "evidence.txt").write_text, "\n".join(map(str, told)))
        return "\n".join(lines)

    async def calm(self) -> None:
        """Wait until the log has not grown for a while."""
        size, quiet = -1, 0
        while quiet < _QUIET:
            now = await self.size()
            size, quiet = now, quiet + 1 if now == size else 0
            await asyncio.sleep(0.5)

    async def size(self) -> int:
        """How many records the log has: what grows as long as there is progress."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(LogUnavailableError):  # it says to repeat: servers and client heal meanwhile
                    names = await self.log.topics()
                    at = [TopicPartition(name, number) for name in names for number in range(names[name].partitions)]
                    return sum((await self.log.end_offsets(at)).values())

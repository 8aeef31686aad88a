"""The shop as an operator runs it, on real servers: every service in several processes, started again when they end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg

from choreo import Bus, Settings, connect
from choreo.cli.common import UNREACHABLE
from choreo.log import open_log
from services.shop import services
from services.shop.audit import SERVICES, audit, findings_now, open_stores
from services.shop.model import Books
from services.trial import begin, ends_of, settle
from tests.chaos.arena import SETUPS, Setup
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import Server, wait_until
from tests.services.processes import CHECKOUT, ShopProcess

GROUPS = (("orders", "loyalty"), ("payments", "notifications"), ("inventory", "shipping"))
"""Which services share a process."""
SHOP_SETUPS = {name: SETUPS[name] for name in ("embedded", "kafka", "kafka-postgres")}

KAFKA = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
"""A killed member's partitions are given to others after this time; one that merely waits for a processor keeps its own."""

_PATIENCE = 300.0
"""Seconds until all processes have begun: on two processors nine of them take their time, the more so if a server is down."""
_STARTS = 5
_LEFT = {
    "choreo_outbox": "events that are not known to be published",
    "choreo_parked": "parked keys",
    "choreo_timers": "deadlines that are still set",
}


class ShopArena:
    """A set-up at work: `async with ShopArena(setup, folder) as arena`.

    Attributes:
        bus: publishes to its log.
        processes: all service processes.
        kafka, database: the servers that there are.
        ended: how many orders have ended, as last seen.
        died: which processes ended by themselves, for other reasons than a server that cannot be reached.
    """

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        self.kafka: KafkaServer | None = None
        self.database: PostgresServer | None = None
        self.processes: list[ShopProcess] = []
        self.ended = 0
        self.died: list[str] = []
        self._moved = asyncio.Event()
        self._servers, self._exit = ExitStack(), AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._start_servers)
            self._exit.callback(self._servers.close)
            self.log = await self._exit.enter_async_context(open_log(self.settings.log))
            self.since = await begin(services, self.settings, self.log)
            self.bus: Bus = await self._exit.enter_async_context(connect(self.settings, log=self.log))
            for names in GROUPS * self.setup.instances:
                self.processes.append(self._exit.enter_context(ShopProcess(names, self._seen_by_services)))
            await self._begun()
            self._tasks = [asyncio.create_task(self._supervise()), asyncio.create_task(self._watch())]
            self._exit.push_async_callback(self._stop_tasks)
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit.aclose()

    async def _begun(self) -> None:
        """Wait until every process is at work."""
        for process in self.processes:
            await asyncio.to_thread(wait_until, process.has_begun, _PATIENCE)

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_servers(self) -> None:
        if self.setup.log == "kafka":
            self.kafka = self._servers.enter_context(KafkaServer({"broker.session.timeout.ms": "9000"}, lasting=True))
        if self.setup.store == "postgres":
            self.database = self._servers.enter_context(PostgresServer())

    @property
    def settings(self) -> Settings:
        """Where log and stores are."""
        log = f"kafka://{self.kafka.bootstrap}" if self.kafka else f"sqlite:///{self.folder}/log.db"
        store = self.database.url if self.database else f"sqlite:///{self.folder}/{{service}}.db"
        return Settings(log=log, store=store, registry=str(CHECKOUT / "schemas"), create_topics=True)

    @property
    def _seen_by_services(self) -> Settings:
        return self.settings.model_copy(update={"kafka": KAFKA if self.kafka else {}})

    def server(self, kind: str) -> Server:
        """The broker or the database."""
        server = {"broker": self.kafka, "database": self.database}[kind]
        assert server is not None
        return server

    async def start(self, server: Server) -> None:
        """Start a server again, however often a busy machine takes too long for it."""
        for attempt in range(1, _STARTS + 1):
            try:
                await asyncio.to_thread(server.start)
                return
            except RuntimeError:
                if attempt == _STARTS:
                    raise

    async def _supervise(self) -> None:
        """Start again what has ended by itself, as any operator's supervisor does."""
        while True:
            for process in self.processes:
                if process.ended is not None:
                    if process.ended != UNREACHABLE:
                        self.died.append(f"{process.name} ended by itself: {process.ended}: {process.log_tail(2)}")
                    process.start()
            await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        """Count the orders that have ended."""
        while True:
            with contextlib.suppress(LookupError, sqlite3.Error, psycopg.Error):  # away just now
                self.ended = await asyncio.to_thread(self._count)
                self._moved.set()
            await asyncio.sleep(0.3)

    async def until_ended(self, orders: float) -> None:
        """Wait until so many orders have ended."""
        while self.ended < orders:
            self._moved.clear()
            await self._moved.wait()

    def _count(self) -> int:
        with open_stores(self.settings.store, ("orders",)) as stores:
            return int(stores["orders"].execute("SELECT count(*) FROM outcomes").fetchone()[0])

    # --- afterwards -----------------------------------------------------------------------------------------------

    async def findings(self, books: Books, patience: float) -> list[str]:
        """Heal everything, wait until nothing is wrong or nothing moves any more, end all services: what is wrong then."""
        for server in filter(None, (self.kafka, self.database)):
            await asyncio.to_thread(server.ensure_running)
        await self._begun()
        look = partial(_reachable, partial(findings_now, self.settings.store, books))
        verdict = await settle(services, self.log, look, since=self.since, patience=patience)
        await self._stop_tasks()
        codes = await asyncio.gather(*(asyncio.to_thread(process.stop) for process in self.processes))
        unclean = [
            f"{process.name} ended with {code}" for process, code in zip(self.processes, codes, strict=True) if code
        ]
        with open_stores(self.settings.store) as stores:
            books_now = audit(stores, books)
            left = [sentence for service in SERVICES for sentence in _left(stores[service], service)]
        letters = [
            f"{at.topic}/{at.partition} has {end - self.since.get(at, 0)} dead letters"
            for at, end in (await ends_of(services, self.log)).items()
            if at.topic.startswith("dlq.") and end > self.since.get(at, 0)
        ]
        return list(dict.fromkeys([*verdict.findings, *books_now, *left, *letters, *unclean, *self.died]))

    def troubles(self, shown: int = 5) -> str:
        """The last warnings and errors of each process."""
        lines = []
        for process in self.processes:
            bad = [line for line in process.log_file.read_text(errors="replace").splitlines() if '"info"' not in line]
            lines += [f"{process.name} {process.folder.name}:", *(f"  {line[:600]}" for line in bad[-shown:])]
        return "\n".join(lines)


def _reachable(look: Callable[[], list[str]]) -> list[str]:
    try:
        return look()
    except psycopg.Error as error:
        return [f"the database cannot be asked: {error}"]


def _left(connection: Any, service: str) -> list[str]:
    """What is left in a store that should be empty when all is at rest."""
    found = []
    for table, meaning in _LEFT.items():
        with closing(connection.execute(f"SELECT count(*) FROM {table}")) as counting:
            (count,) = counting.fetchone()
        found += [f"{service}: {count} {meaning}"] if count else []
    return found

"""What the tests of all flows do alike: settings on any log, and services as processes of which one is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from choreo import Bus, Service, Settings, connect
from choreo.log import Log, open_log
from services.evidence import Seen, events
from services.trial import Ends, begin, settle
from tests.services.conftest import SCHEMAS
from tests.services.processes import KAFKA, ServiceProcess
from tests.support import eventually

_POINTS = ("before handler", "after handler", "before commit", "after commit", "after publish")


def settings_at(log_url: str, folder: Path) -> Settings:
    """The contracts of this repository, and stores in this folder."""
    return Settings(
        log=log_url,
        store=f"sqlite:///{folder}/{{service}}.db",
        registry=SCHEMAS,
        create_topics=True,
        kafka=KAFKA if log_url.startswith("kafka") else {},
    )


def deaths(services: Sequence[Service]) -> list[Any]:
    """Each service with each point at which it may die (see `World.crash_at`): who emits nothing never publishes."""
    return [
        pytest.param(service, point, id=f"{service.name} {point}")
        for service in services
        for point in _POINTS
        if point != "after publish" or any(handler.emits.classes for handler in service.handlers.values())
    ]


class Flow(NamedTuple):
    """A flow whose services are processes of their own."""

    services: Sequence[Service]
    settings: Settings
    log: Log
    bus: Bus
    since: Ends
    processes: list[ServiceProcess]

    def of(self, service: Service) -> list[ServiceProcess]:
        """The processes of a service."""
        return [process for process in self.processes if process.services == [service.name]]

    async def settle(self, look: Callable[[], list[str]], services: Sequence[Service] = ()) -> None:
        """Wait until nothing is wrong, and these services (or all) have read to the end."""
        waiting = settle(services or self.services, self.log, look, since=self.since, patience=60)
        verdict = await waiting
        assert verdict.findings == [], "\n".join(process.log_tail() for process in self.processes)

    async def events(self, *topics: str) -> list[Seen]:
        """The events of these topics, each once."""
        return await events(self.log, self.settings, topics, self.since)

    async def kill_while(self, work: Awaitable[object], victim: ServiceProcess, *, once: Callable[[], object]) -> None:
        """Kill (-9) a process while this goes on, as soon as a condition holds, and start it again afterwards."""
        working = asyncio.ensure_future(work)
        await eventually(once, victim.log_tail, patience=60)
        await asyncio.to_thread(victim.kill)
        await working
        await asyncio.to_thread(victim.start)

    async def kill_again_and_again(self, victim: Service, *, times: int = 3) -> None:
        """Kill (-9) a service whenever it has begun to work, and start it again."""
        (process,) = self.of(victim)
        for _ in range(times):
            await eventually(process.has_begun, process.log_tail, patience=60)
            await asyncio.sleep(0.5)  # whatever it is doing then
            await asyncio.to_thread(process.kill)
            await asyncio.to_thread(process.start)


@asynccontextmanager
async def in_processes(
    package: str, services: Sequence[Service], settings: Settings, *, twice: Sequence[Service] = (), **environment: str
) -> AsyncIterator[Flow]:
    """Each service as a process of its own, some as two, in fresh stores that begin at the log's present end."""
    async with open_log(settings.log, settings.kafka) as log:
        since = await begin(services, settings, log)
        with ExitStack() as stack:
            started = [
                stack.enter_context(ServiceProcess(package, [service.name], settings, environment))
                for service in (*services, *twice)
            ]
            async with connect(settings, source="test", log=log) as bus:
                yield Flow(services, settings, log, bus, since, started)

"""A flow as an operator runs it: a process for each service, one of which is killed on the way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from choreo import Service, Settings, connect
from choreo.log import open_log
from services.trial import Stage, begin
from tests.services.conftest import SCHEMAS
from tests.services.processes import KAFKA, ShopProcess
from tests.support import eventually


class FlowService(ShopProcess):
    """One instance of one service of a flow: `choreo run services.FLOW:NAME`."""

    def __init__(self, flow: str, service: str, settings: Settings) -> None:
        super().__init__([service], settings)
        self._flow = flow

    def command(self) -> list[str]:
        """The instance's command line."""
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        choreo = str(Path(sys.executable).parent / "choreo")
        return ["env", *variables, choreo, "run", f"services.{self._flow}:{self.services[0]}"]


def settings_for(log_url: str, folder: Path) -> Settings:
    """Fresh stores beside a log."""
    stores = folder / "stores"
    stores.mkdir(parents=True, exist_ok=True)
    kafka = KAFKA if log_url.startswith("kafka") else {}
    return Settings(
        log=log_url, store=f"sqlite:///{stores}/{{service}}.db", registry=SCHEMAS, create_topics=True, kafka=kafka
    )


@contextmanager
def _processes(flow: str, services: Sequence[Service], settings: Settings) -> Iterator[dict[str, FlowService]]:
    started: dict[str, FlowService] = {}
    try:
        for service in services:
            process = started[service.name] = FlowService(flow, service.name, settings)
            process.start()
        yield started
    finally:
        for process in started.values():
            process.__exit__()


@asynccontextmanager
async def in_processes(
    flow: str, services: Sequence[Service], settings: Settings
) -> AsyncIterator[tuple[Stage, dict[str, FlowService]]]:
    """The services as processes, in fresh stores that begin at the log's present end; what goes to them, and themselves."""
    async with open_log(settings.log, settings.kafka) as log:
        since = await begin(services, settings, log)
        with _processes(flow, services, settings) as running:
            async with connect(settings, log=log) as bus:
                yield Stage(services, settings, log, since, {}, bus), running


def tails(running: dict[str, FlowService]) -> str:
    """The ends of their logs."""
    return "\n".join(f"{name}: {process.log_tail()}" for name, process in running.items())


async def kill_in_the_middle(process: FlowService, *, times: int = 3) -> None:
    """Kill a service that is at work (SIGKILL), and start it again, some times."""
    for _ in range(times):
        await eventually(process.has_begun, process.log_tail, patience=60)
        await asyncio.sleep(0.5)  # whatever it is doing then
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)

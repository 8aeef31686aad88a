"""A flow's services as processes of their own, as an operator would run them: one or more for each service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from choreo import Settings
from tests.servers.process import Server

CHECKOUT = Path(__file__).parents[2]
KAFKA = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}
"""A killed member's partitions are given to others after this time; the default of 45 s would make tests slow."""


class ServiceProcess(Server):
    """One process with an instance of one or more services of a package: `choreo run PACKAGE:NAME …`.

    Args:
        environment: more variables for it.
    """

    def __init__(
        self, package: str, services: Sequence[str], settings: Settings, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = f"{package.rpartition('.')[2]}-{services[0]}"
        super().__init__()
        self.package, self.services = package, services
        self._begins = 0
        self._environment = {
            "CHOREO_LOG": settings.log,
            "CHOREO_STORE": settings.store,
            "CHOREO_REGISTRY": settings.registry,
            "CHOREO_KAFKA": json.dumps(settings.kafka),
            "CHOREO_CREATE_TOPICS": "true",
            "CHOREO_LOG_FORMAT": "json",
            "PYTHONPATH": str(CHECKOUT),
            **(environment or {}),
        }

    def command(self) -> list[str]:
        """Its command line."""
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        choreo = str(Path(sys.executable).parent / "choreo")
        return ["env", *variables, choreo, "run", *(f"{self.package}:{name}" for name in self.services)]

    def ready(self) -> bool:
        """Always: nobody waits for a service, its events do."""
        return True

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> int | None:
        """Its exit code, if it has ended and nobody here has killed it."""
        return None if self._process is None else self._process.poll()

    def start(self) -> Self:
        """Start it (again)."""
        self._begins = self.log_file.stat().st_size if self.log_file.exists() else 0
        return super().start()

    def has_begun(self) -> bool:
        """Whether all its services are at work since it was started last."""
        with self.log_file.open("rb") as log:
            log.seek(self._begins)
            return log.read().count(b'"service started"') >= len(self.services)

    def stop(self) -> int:
        """End it politely; its exit code."""
        process = self._process
        super().stop()
        return process.returncode if process else 0

    def lines(self) -> list[dict[str, object]]:
        """What it has logged."""
        text = self.log_file.read_text("utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


class ShopProcess(ServiceProcess):
    """One process with an instance of one or more of the shop's services."""

    def __init__(self, services: Sequence[str], settings: Settings) -> None:
        super().__init__("services.shop", services, settings)


@contextmanager
def processes(services: Sequence[str], settings: Settings) -> Iterator[list[ShopProcess]]:
    """One running process for each of these names, a name that is there twice having two."""
    started: list[ShopProcess] = []
    try:
        for service in services:
            started.append(ShopProcess([service], settings))
            started[-1].start()
        yield started
    finally:
        for process in started:
            process.__exit__()

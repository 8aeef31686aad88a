"""What a test can do to the services of a world, in one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from choreo.durations import Duration, seconds
from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.service import Service
from choreo.testing.instances import Instances
from choreo.testing.link import Point
from choreo.testing.network import Hold, Network


class Trouble:
    """The part of a world that makes trouble."""

    _services: Sequence[Service]
    _network: Network
    _instances: Instances

    def duplicate(self, event: type[Event], *, times: int | None = None) -> None:
        """Write events of a class twice from now on, with one event id: all, or so many of them."""
        self._network.doubled[event] = float("inf") if times is None else times

    def delay(self, event: type[Event], duration: Duration, *, to: Service | str | None = None) -> None:
        """Let events of a class arrive so long after they were produced; what lies behind them in their partition waits too."""
        self._hold(event, to, seconds(duration))

    def hold(self, event: type[Event], *, to: Service | str | None = None) -> None:
        """Let events of a class not arrive before they are released; what lies behind them in their partition waits too."""
        self._hold(event, to, 0.0)

    def _hold(self, event: type[Event], to: Service | str | None, duration: float) -> None:
        self._network.holds.append(Hold(event, "" if to is None else self._named(to).name, duration))

    async def release(self, event: type[Event], *, to: Service | str | None = None) -> None:
        """End `hold` and `delay` of a class of events, for one service or (unless given) for all."""
        name = "" if to is None else self._named(to).name
        holds = self._network.holds
        kept = [hold for hold in holds if not (hold.event is event and name in {"", hold.service})]
        if len(kept) == len(holds):
            raise ConfigurationError(f"no {event.__name__} is held up", remedy="hold or delay it first")
        self._network.holds = kept
        await self._network.release()

    def fail(
        self,
        handler: Callable[..., Any] | str,
        error: BaseException | type[BaseException],
        *,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Let the next calls of a handler raise this; `after`: when its own code has run."""
        calls = self._instances.calls
        calls.fail(calls.named(handler), error, times=times, after=after)

    def hang(self, handler: Callable[..., Any] | str, *, times: int = 1) -> None:
        """Let the next calls of a handler hang, until it is ended at its timeout."""
        calls = self._instances.calls
        calls.hang(calls.named(handler), times)

    async def crash(self, service: Service | str) -> None:
        """Let a service's instance die at once, as by SIGKILL, and start it again."""
        await self._instances.crash(self._named(service).name)

    def crash_at(self, service: Service | str, point: Point, *, times: int = 1) -> None:
        """Let a service's instance die when it comes to a point the next time (or so many times), and start it again.

        Args:
            point: "before handler"; "after handler", which has returned, and nothing is written; "before commit"; "after commit",
                before anything is published; "after publish", before that is noted.
        """
        self._instances.crash_at(self._named(service).name, point, times)

    @property
    def crashes(self) -> dict[str, int]:
        """How often instances have died, by service."""
        return dict(self._instances.crashes)

    def _named(self, service: Service | str) -> Service:
        """A service of this world."""
        name = service.name if isinstance(service, Service) else service
        for known in self._services:
            if known.name == name:
                return known
        remedy = f"it has {', '.join(known.name for known in self._services)}"
        raise ConfigurationError(f"service {name!r} is not in this world", remedy=remedy)

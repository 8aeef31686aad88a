"""A world: services at work over a log in memory and a clock that the test moves."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from choreo.choreography import Choreography
from choreo.dlq.letters import DeadLetter
from choreo.durations import Duration, seconds
from choreo.errors import ConfigurationError
from choreo.events import Event, origin_of
from choreo.log.memory import MemoryLog
from choreo.runtime.bus import Bus
from choreo.runtime.instance import Instance
from choreo.runtime.run import ensure_topics
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.store.port import Row
from choreo.store.sqlite.memory import database
from choreo.testing.clock import VirtualClock
from choreo.testing.handlers import Calls
from choreo.testing.journal import Journal
from choreo.testing.link import Link, Point
from choreo.testing.network import Hold, Network
from choreo.testing.saga import Saga, words
from choreo.testing.stillness import until_still
from choreo.testing.store import LinkedStore
from choreo.wire import Codec

E = TypeVar("E", bound=Event)

START = datetime(2026, 1, 1, tzinfo=UTC)
_SOURCE = "test"


class _Settings(Settings):
    """Settings that no environment variable changes."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class World:
    """Services at work, and whatever a test may want of them. Made by `running`.

    Attributes:
        bus: publishes as programs outside do; what a test publishes comes from `test`.
        clock: moved by `advance` alone.
    """

    def __init__(
        self, services: Sequence[Service], codec: Codec, *, seed: int, start: datetime, patience: float
    ) -> None:
        self.services = {service.name: service for service in services}
        self._chance = random.Random(seed)  # noqa: S311 - a test is to run the same way again
        self.clock = VirtualClock(round(start.timestamp() * 1000), self._chance)
        self._log = MemoryLog(now=self.clock.now_ms)
        self._codec = codec
        classes = {
            event.contract.type_name: origin_of(event) for service in services for event in service.event_classes
        }
        self._journal = Journal(codec, classes)
        self._network = Network(self.clock, self._journal)
        self._calls = Calls(list(services))
        self._patience = patience
        self._settings = _Settings(log="memory://", stop_grace=5.0)
        self._databases: dict[str, sqlite3.Connection] = {}
        self._links: dict[str, Link] = {}
        self._instances: dict[str, Instance] = {}
        self._dying: dict[tuple[str, Point], int] = {}
        self._crashes: set[asyncio.Task[None]] = set()
        self._saw_dead_letters = False
        self._exit = AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        outside = Link(self._log, self._network, "", lambda _: False)
        self.bus = Bus(
            self._settings, _SOURCE, outside, codec=codec, clock=self.clock, open_store=self._opened(outside)
        )

    # --- life -----------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        services = list(self.services.values())
        classes = {event for service in services for event in service.event_classes}
        await ensure_topics(self._log, Choreography.of(services).topics, create=True)
        await self._codec.prepare(writes=classes, reads=classes)
        await self._exit.enter_async_context(self.bus)
        for name in self.services:
            await self._begin(name)
        await self.settle()

    async def _begin(self, name: str) -> None:
        """A new instance of a service."""
        link = Link(self._log, self._network, name, lambda point: self._dies(name, point))
        service = self._calls.watched(self.services[name], link)
        instance = Instance(
            service,
            log=link,
            codec=self._codec,
            settings=self._settings,
            clock=self.clock,
            open_store=self._opened(link),
        )
        self._links[name], self._instances[name] = link, instance
        await instance.start()

    async def _stop(self) -> None:
        self._calls.close()
        await asyncio.gather(*self._crashes, return_exceptions=True)
        for name in self._instances:
            await self._end(name)
        await self._exit.aclose()
        for connection in self._databases.values():
            connection.close()

    async def _end(self, name: str) -> None:
        self._links[name].dead = True
        await self._instances[name].kill()

    def _opened(self, link: Link) -> Callable[[str], LinkedStore]:
        """Opens stores in memory, whatever their address; the services' own last as long as the world."""

        def open_store(address: str) -> LinkedStore:
            if address not in self._databases:
                self._databases[address] = database()
            return LinkedStore(self._databases[address], link.service or address, link)

        return open_store

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of this world."""
        return datetime.fromtimestamp(self.clock.now / 1e6, UTC)

    async def settle(self) -> None:
        """Wait until nothing moves without time passing.

        Raises:
            NotSettledError: something goes on and on, or waits for what does not come.
            ChoreoError: a service cannot go on.
        """
        await until_still(self._busy, self._check, self._patience)

    async def advance(self, duration: Duration) -> None:
        """Let this much time pass, stopping at each moment at which something is due until nothing moves.

        Raises:
            NotSettledError, ChoreoError: as `settle`.
        """
        end = self.clock.now + round(seconds(duration) * 1e6)
        await self.settle()
        while (due := self.clock.next_due(pauses=self._calls.hung > 0)) is not None and due <= end:
            self.clock.move_to(due)
            await self.settle()
        self.clock.move_to(end)
        await self.settle()

    def _busy(self) -> list[str]:
        """Whoever waits for something outside the event loop."""
        if sum(instance.under_way for instance in self._instances.values()) <= self._calls.hung:
            return []
        return self._calls.under_way or ["a thread is about to begin"]

    def _check(self) -> None:
        for crash in self._crashes:
            if crash.done() and crash.exception() is not None:
                raise crash.exception()  # type: ignore[misc] # just asked
        for name, instance in self._instances.items():
            if instance.failed is not None:
                instance.failed.add_note(f"service {name} cannot go on")
                raise instance.failed

    # --- looking --------------------------------------------------------------------------------------------------

    async def publish(self, event: Event, *, correlation_id: str | None = None, event_id: str | None = None) -> Saga:
        """Publish an event as somebody outside; see `Bus.publish`."""
        name = type(event).contract.type_name
        self._journal.classes.setdefault(name, origin_of(type(event)))
        begun = await self.bus.publish(event, correlation_id=correlation_id, event_id=event_id or self._new_id())
        return self.saga(begun)

    def _new_id(self) -> str:
        """A UUIDv7 of this world's time and chance."""
        bits = self.clock.now_ms() << 80 | 7 << 76 | self._chance.getrandbits(12) << 64 | 2 << 62
        return str(uuid.UUID(int=bits | self._chance.getrandbits(62)))

    def emitted(self, event_class: type[E]) -> list[E]:
        """All events of a class that are in the log, each once, in the order in which they were written."""
        return self._journal.emitted(event_class)

    def saga(self, correlation_id: str) -> Saga:
        """A saga by its correlation id."""
        return Saga(correlation_id, self._journal)

    @property
    def sagas(self) -> list[Saga]:
        """All sagas, in the order in which they began."""
        return [self.saga(name) for name in self._journal.correlation_ids]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What has failed for good, oldest first."""
        self._saw_dead_letters = True
        return list(self._journal.dead_letters)

    async def fetch(self, service: Service | str, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows that a query finds in a service's store."""
        address = self._settings.store_of(*self._named(service))
        return self._databases[address].execute(sql, parameters).fetchall()

    def _named(self, service: Service | str) -> tuple[str, str | None]:
        """The name and the declared store of a service of this world."""
        name = service.name if isinstance(service, Service) else service
        if name not in self.services:
            raise ConfigurationError(
                f"service {name!r} is not in this world", remedy=f"it has {', '.join(self.services)}"
            )
        return name, self.services[name].store

    # --- trouble --------------------------------------------------------------------------------------------------

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
        self._network.holds.append(Hold(event, "" if to is None else self._named(to)[0], duration))

    async def release(self, event: type[Event], *, to: Service | str | None = None) -> None:
        """End `hold` and `delay` of a class of events, for one service or (unless given) for all."""
        name = "" if to is None else self._named(to)[0]
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
        self._calls.fail(self._calls.named(handler), error, times=times, after=after)

    def hang(self, handler: Callable[..., Any] | str, *, times: int = 1) -> None:
        """Let the next calls of a handler hang, until it is ended at its timeout."""
        self._calls.hang(self._calls.named(handler), times)

    async def crash(self, service: Service | str) -> None:
        """Let a service's instance die at once, as by SIGKILL, and start it again."""
        name, _ = self._named(service)
        self._links[name].dead = True
        await self._restart(name)

    def crash_at(self, service: Service | str, point: Point, *, times: int = 1) -> None:
        """Let a service's instance die when it comes to a point the next time (or so many times), and start it again.

        Args:
            point: "before handler"; "after handler", which has returned, and nothing is written; "before commit"; "after commit",
                before anything is published; "after publish", before that is noted.
        """
        self._dying[self._named(service)[0], point] = times

    def _dies(self, name: str, point: Point) -> bool:
        left = self._dying.get((name, point), 0)
        if not left:
            return False
        self._dying[name, point] = left - 1
        self._links[name].dead = True
        self._loop.call_soon_threadsafe(self._restart_soon, name)
        return True

    def _restart_soon(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._restart(name))
        self._crashes.add(task)

    async def _restart(self, name: str) -> None:
        await self._end(name)
        await self._begin(name)


@asynccontextmanager
async def running(
    services: Iterable[Service] | Service,
    *,
    seed: int = 0,
    start: datetime = START,
    patience: float = 10.0,
    dead_letters: Literal["fail", "keep"] = "fail",
) -> AsyncIterator[World]:
    """These services at work over a log in memory and a virtual clock, until the block ends.

        async with running(shop.services) as world:
            saga = await world.publish(OrderPlaced(...))
            await world.settle()
            assert world.emitted(PaymentCharged) == [PaymentCharged(...)]

    All of it is the runtime that runs in production, but for log, stores and schemas, which are in memory, and time.

    Args:
        seed: of what is left to chance: event ids, waits between attempts.
        start: when it begins, in its own time.
        patience: seconds of real time after which `settle` gives up.
        dead_letters: "fail": the block may not end with dead letters that the test has not asked for; "keep": it may.

    Raises:
        ChoreoError: the services do not fit together or cannot start.
        AssertionError: there are dead letters that nobody has asked for.
    """
    chosen = [services] if isinstance(services, Service) else list(services)
    world = World(chosen, _codec(), seed=seed, start=start, patience=patience)
    try:
        await world._start()  # noqa: SLF001 - its own maker
        yield world
    finally:
        await world._stop()  # noqa: SLF001
    if dead_letters == "fail" and not world._saw_dead_letters and world._journal.dead_letters:
        found = "\n".join(f"  {words(letter)}" for letter in world.dead_letters)
        raise AssertionError(f"dead letters that the test has not asked for (world.dead_letters):\n{found}")


_shared: list[Codec] = []


def _codec() -> Codec:
    """One for all worlds: what it knows of a class never changes."""
    if not _shared:
        from choreo.wire.memory import MemoryRegistry

        _shared.append(Codec(MemoryRegistry()))
    return _shared[0]

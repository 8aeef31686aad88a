"""A world: services at work over a log in memory and a clock that the test moves."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

from choreo.choreography import Choreography
from choreo.dlq.letters import DeadLetter
from choreo.durations import Duration, seconds
from choreo.errors import ConfigurationError
from choreo.events import Event, origin_of
from choreo.log.memory import MemoryLog
from choreo.runtime.bus import Bus
from choreo.runtime.run import ensure_topics
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.store.port import Row
from choreo.testing.clock import VirtualClock
from choreo.testing.instances import Instances
from choreo.testing.journal import Journal
from choreo.testing.link import Point
from choreo.testing.network import Hold, Network
from choreo.testing.saga import Saga, words
from choreo.testing.stillness import until_still
from choreo.wire import Codec

E = TypeVar("E", bound=Event)

made: list[World] = []
"""The worlds that were made since somebody emptied this list: the pytest plugin does, for each test."""

START = datetime(2024, 1, 1, tzinfo=UTC)
_SOURCE = "test"
_SHOWN = 5
"""Of how many sagas, the last ones, a story tells."""


class World:
    """Services at work, and whatever a test may want of them. Made by `running`; an async context manager.

    Attributes:
        bus: publishes as programs outside do; what a test publishes comes from `test`.
        clock: moved by `advance` alone.
        log: what all services share.
    """

    def __init__(
        self, services: Sequence[Service], codec: Codec, *, seed: int, start: datetime, patience: float, strict: bool
    ) -> None:
        self._services = list(services)
        self._codec, self._patience, self._strict = codec, patience, strict
        self._chance = random.Random(seed)  # noqa: S311 - a test is to run the same way again
        self.clock = VirtualClock(round(start.timestamp() * 1000), self._chance)
        self.log = MemoryLog(now=self.clock.now_ms)
        classes = {
            event.contract.type_name: origin_of(event) for service in services for event in service.event_classes
        }
        self._journal = Journal(codec, classes)
        self._network = Network(self.clock, self._journal)
        self._saw_dead_letters = False
        self._exit = AsyncExitStack()
        made.append(self)

    async def __aenter__(self) -> Self:
        """Start the services.

        Raises:
            ChoreoError: they do not fit together or cannot start.
        """
        settings = Settings.model_construct(log="memory://", stop_grace=5.0)  # without what the environment says
        self._instances = instances = Instances(
            self._services, log=self.log, network=self._network, codec=self._codec, settings=settings, clock=self.clock
        )  # fmt: skip
        self.bus = Bus(
            settings, _SOURCE, instances.outside, codec=self._codec, clock=self.clock,
            open_store=instances.opens(instances.outside),
        )  # fmt: skip
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def _start(self) -> None:
        classes = {event for service in self._services for event in service.event_classes}
        await ensure_topics(self.log, Choreography.of(self._services).topics, create=True)
        await self._codec.prepare(writes=classes, reads=classes)
        self._exit.callback(self._instances.forget)
        await self._exit.enter_async_context(self.bus)
        self._exit.push_async_callback(self._instances.stop)
        await self._instances.start()
        await self.settle()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the services.

        Raises:
            AssertionError: there are dead letters that the test has not asked for.
        """
        await self._exit.aclose()
        letters = self._journal.dead_letters
        if kind is None and self._strict and letters and not self._saw_dead_letters:
            found = "\n".join(f"  {words(letter)}" for letter in letters)
            raise AssertionError(f"dead letters that the test has not asked for (world.dead_letters):\n{found}")

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
        await until_still(self._instances.busy, self._instances.check, self._patience)

    async def advance(self, duration: Duration) -> None:
        """Let this much time pass, stopping at each moment at which something is due until nothing moves.

        Raises:
            NotSettledError, ChoreoError: as `settle`.
        """
        end = self.clock.now + round(seconds(duration) * 1e6)
        await self.settle()
        while (due := self.clock.next_due(pauses=self._instances.under_way > 0)) is not None and due <= end:
            self.clock.move_to(due)
            await self.settle()
        self.clock.move_to(end)
        await self.settle()

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

    def story(self) -> str:
        """All sagas and dead letters, for reading: what the pytest plugin shows of a test that fails."""
        told = [f"at {self.now.isoformat(timespec='milliseconds')}, {len(self.sagas)} sagas"]
        told += [saga.tree() for saga in self.sagas[-_SHOWN:]]
        nobodys = [letter for letter in self._journal.dead_letters if not letter.correlation_id]
        return "\n".join([*told, *(f"dead letter: {words(letter)}" for letter in nobodys)])

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What has failed for good, oldest first."""
        self._saw_dead_letters = True
        return list(self._journal.dead_letters)

    async def fetch(self, service: Service | str, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows that a query finds in a service's store."""
        return self._instances.fetch(self._named(service), sql, parameters)

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


def running(
    services: Iterable[Service] | Service,
    *,
    seed: int = 0,
    start: datetime = START,
    patience: float = 10.0,
    dead_letters: Literal["fail", "keep"] = "fail",
) -> World:
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
    """
    chosen = [services] if isinstance(services, Service) else list(services)
    return World(chosen, _codec(), seed=seed, start=start, patience=patience, strict=dead_letters == "fail")


_shared: list[Codec] = []


def _codec() -> Codec:
    """One for all worlds: what it knows of a class never changes."""
    if not _shared:
        from choreo.wire.memory import MemoryRegistry

        _shared.append(Codec(MemoryRegistry()))
    return _shared[0]

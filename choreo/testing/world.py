"""A world: services at work over a log in memory and a clock that the test moves."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from choreo.choreography import Choreography
from choreo.dlq.letters import DeadLetter
from choreo.durations import Duration, seconds
from choreo.events import Event, origin_of
from choreo.log import Log
from choreo.log.memory import MemoryLog
from choreo.runtime.bus import Bus
from choreo.runtime.run import ensure_topics
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.store.port import Row
from choreo.testing.clock import VirtualClock
from choreo.testing.instances import Instances
from choreo.testing.journal import Journal
from choreo.testing.network import Network
from choreo.testing.saga import Saga, words
from choreo.testing.stillness import until_still
from choreo.testing.trouble import Trouble
from choreo.wire import Codec
from choreo.wire.folder import FolderRegistry
from choreo.wire.memory import MemoryRegistry

E = TypeVar("E", bound=Event)

made: list[World] = []
"""The worlds that were made since somebody emptied this list: the pytest plugin does, for each test."""

START = datetime(2024, 1, 1, tzinfo=UTC)
_SOURCE = "test"
_SHOWN = 5
"""Of how many sagas, the last ones, a story tells."""


class World(Trouble):
    """Services at work, and whatever a test may want of them. Made by `running`; an async context manager.

    Attributes:
        bus: publishes as programs outside do; what a test publishes comes from `test`.
        clock: moved by `advance` alone.
        log: what all services share, as others see it: for records that no bus would publish.
    """

    def __init__(
        self, services: Sequence[Service], codec: Codec, *, seed: int, start: datetime, patience: float, strict: bool
    ) -> None:
        self._services = list(services)
        self._codec, self._patience, self._strict = codec, patience, strict
        self._chance = random.Random(seed)  # noqa: S311 - a test is to run the same way again
        self.clock = VirtualClock(round(start.timestamp() * 1000), self._chance)
        self._memory = MemoryLog(now=self.clock.now_ms)
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
            self._services, log=self._memory, network=self._network, codec=self._codec, settings=settings, clock=self.clock
        )  # fmt: skip
        self.log: Log = instances.outside
        self.bus = Bus(
            settings, _SOURCE, self.log, codec=self._codec, clock=self.clock,
            open_store=instances.opens(instances.outside),
        )  # fmt: skip
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def _start(self) -> None:
        handlers = [handler for service in self._services for handler in service.handlers.values()]
        await ensure_topics(self._memory, Choreography.of(self._services).topics, create=True)
        await self._codec.prepare(
            writes={event for handler in handlers for event in handler.emits.classes},
            reads={event for handler in handlers for event in handler.consumes},
        )
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

    async def publish(
        self, event: Event, *, correlation_id: str | None = None, parent: str | None = None, event_id: str | None = None
    ) -> Saga:
        """Publish an event as somebody outside; see `Bus.publish`."""
        name = type(event).contract.type_name
        self._journal.classes.setdefault(name, origin_of(type(event)))
        begun = await self.bus.publish(
            event, correlation_id=correlation_id, parent=parent, event_id=event_id or self._new_id()
        )
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
        sagas, names = self.sagas, set(self._journal.correlation_ids)
        told = [f"at {self.now.isoformat(timespec='milliseconds')}, {len(sagas)} sagas"]
        told += [saga.tree() for saga in sagas[-_SHOWN:]]
        nobodys = [letter for letter in self._journal.dead_letters if letter.correlation_id not in names]
        return "\n".join([*told, *(f"dead letter: {words(letter)}" for letter in nobodys)])

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What has failed for good, oldest first."""
        self._saw_dead_letters = True
        return list(self._journal.dead_letters)

    async def fetch(self, service: Service | str, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows that a query finds in a service's store; placeholders as for `ctx.db`."""
        return await self._instances.fetch(self._named(service), sql, parameters)


def running(
    services: Iterable[Service] | Service,
    *,
    schemas: str | Path | None = None,
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
        schemas: a folder of contracts, for records that older classes have written; it is read and never written.
        seed: of what is left to chance: event ids, waits between attempts.
        start: when it begins, in its own time.
        patience: seconds of real time after which `settle` gives up.
        dead_letters: "fail": the block may not end with dead letters that the test has not asked for; "keep": it may.
    """
    chosen = [services] if isinstance(services, Service) else list(services)
    return World(chosen, _codec(schemas), seed=seed, start=start, patience=patience, strict=dead_letters == "fail")


_shared: list[Codec] = []


def _codec(schemas: str | Path | None) -> Codec:
    """One for all worlds without a folder: what it knows of a class never changes."""
    if schemas is not None:
        return Codec(MemoryRegistry(FolderRegistry(Path(schemas))))
    if not _shared:
        _shared.append(Codec(MemoryRegistry()))
    return _shared[0]

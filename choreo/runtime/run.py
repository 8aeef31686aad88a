"""Running services: opening what they share, starting them, and stopping them gracefully."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog

from choreo.choreography import Choreography, topic_settings
from choreo.errors import UnknownTopicError
from choreo.log import Log, Topic, TopicPartition, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.patience import Patient, until_stopped
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.wire import Codec, open_registry

T = TypeVar("T")

_log = structlog.get_logger("choreo.runtime")
_TRACKED = 20
"""About how many objects the cyclic collector follows for a record under way (18 were counted)."""


@asynccontextmanager
async def running(
    services: Sequence[Service], settings: Settings | None = None, *, log: Log | None = None
) -> AsyncIterator[dict[str, Instance]]:
    """All these services at work in this process, until the block ends.

    Args:
        log: a connected log to use instead of opening `settings.log`.

    Raises:
        ChoreoError: the log, the registry or a store cannot be used, or topics are missing.
    """
    settings = settings or Settings()
    if log is None:
        async with (
            open_log(settings.log, settings.kafka) as opened,
            running(services, settings, log=opened) as instances,
        ):
            yield instances
        return
    registry = open_registry(settings.registry)
    try:
        await ensure_topics(log, Choreography.of(services).topics, create=settings.creates_topics)
        codec = Codec(registry)
        await codec.prepare(
            writes={
                event
                for service in services
                for handler in service.handlers.values()
                for event in handler.emits.classes
            },
            reads={
                event for service in services for handler in service.handlers.values() for event in handler.consumes
            },
        )
        instances = {service.name: Instance(service, log=log, codec=codec, settings=settings) for service in services}
        try:
            for instance in instances.values():
                await instance.start()
            yield instances
        finally:
            stopped = (instance.stop() for instance in instances.values())
            for error in await asyncio.gather(*stopped, return_exceptions=True):
                if error is not None:
                    raise error
    finally:
        await registry.aclose()


async def run_services(services: Sequence[Service], settings: Settings, *, stop: asyncio.Event) -> None:
    """Run these services until `stop` is set, then stop them gracefully.

    Where waiting can help (no answer at the start, a right that is lacking) it waits, says for what, and tries again.

    Raises:
        ChoreoError: they cannot start, or one of them cannot go on; the others have been stopped.
    """
    await until_stopped(_Work(stop, services, settings), settings)


class _Work(Patient):
    """What `run_services` does just now."""

    def __init__(self, stop: asyncio.Event, services: Sequence[Service], settings: Settings) -> None:
        super().__init__(stop, _log, "the services are starting")
        self._services, self._settings = services, settings
        self._instances: dict[str, Instance] = {}

    async def work(self) -> None:
        async with running(self._services, self._settings) as instances:
            self._instances, self.is_begun = instances, True
            settle_garbage_collector(self._settings.max_in_flight * len(self._services))
            await self._until_one_fails(instances)

    async def _until_one_fails(self, instances: dict[str, Instance]) -> None:
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(each.failure()) for each in instances.values()]
        ends.append(asyncio.ensure_future(self.stop.wait()))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for waiting in ends:
                waiting.cancel()

    async def live(self) -> list[str]:
        known = self._instances.items() if self.is_begun else ()
        return [f"{name}: {instance.failed}" for name, instance in known if instance.failed is not None]

    async def ready(self) -> list[str]:
        if self.stop.is_set():
            return ["the services are stopping"]
        if not self.is_begun:
            return [self.waits_for]
        looks = await asyncio.gather(*(instance.obstacles() for instance in self._instances.values()))
        return [f"{name}: {why}" for name, found in zip(self._instances, looks, strict=True) for why in found]


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on uvloop where there is one: a record that comes alone costs less (docs/decisions/0012)."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)


def settle_garbage_collector(under_way: int) -> None:
    """Let the cyclic collector look when more has come than records under way explain, and never at what is loaded for good.

    Records, events and rows hold no cycles: the collector finds nothing among them, and takes a seventh of the CPU time
    to find it (`benchmarks/lanes.py`). Cycles that handlers make are still collected, later.

    Args:
        under_way: how many records there may be at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(under_way * _TRACKED, *gc.get_threshold()[1:])


async def ensure_topics(log: Log, topics: Sequence[str], *, create: bool) -> None:
    """Check that these topics exist, or create those that do not.

    Raises:
        UnknownTopicError: some do not exist and may not be created; all are named.
        AccessError: some may not be seen or created.
    """
    missing = sorted(set(topics) - set(await log.topics()))
    if not missing:
        return
    if not create:
        with suppress(UnknownTopicError):  # a topic may only be hidden from us: asking for it says so
            await log.beginning_offsets([TopicPartition(missing[0], 0)])
        raise UnknownTopicError(
            f"the log {log.url} has no topics {', '.join(missing)}",
            remedy="create them with `choreo topics create MODULE`, or run with --create-topics",
        )
    created = await log.create_topics([Topic(name=name, settings=topic_settings(name)) for name in missing])
    if created:
        _log.info("topics created", topics=", ".join(created))

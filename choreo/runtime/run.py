"""Running services: opening what they share, starting them, and stopping them gracefully."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog

from choreo.choreography import Choreography, topic_settings
from choreo.errors import (
    AccessError,
    LogUnavailableError,
    RegistryUnavailableError,
    StoreUnavailableError,
    UnknownTopicError,
)
from choreo.log import Log, Topic, TopicPartition, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.wire import Codec, open_registry

T = TypeVar("T")

_log = structlog.get_logger("choreo.runtime")
_PASSING = (AccessError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError)
_FIRST_DELAY, _MAX_DELAY = 0.5, 15.0
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
    work = _Work(stop)
    async with AsyncExitStack() as stack:
        if settings.health_port is not None:
            from choreo.observe.health import health_port  # a web server, only where it is asked for

            port = health_port(settings.health_host, settings.health_port, live=work.failures, ready=work.obstacles)
            await stack.enter_async_context(port)
        doing, stopping = asyncio.ensure_future(work.run(services, settings)), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.instances is None and not doing.done():
                doing.cancel()  # it waits for something that may never come
                await asyncio.wait({doing})
            if not doing.cancelled():
                await doing
        finally:
            stopping.cancel()
            doing.cancel()


class _Work:
    """What `run_services` does just now.

    Attributes:
        instances: by service, once they have started.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self.instances: dict[str, Instance] | None = None
        self._stop = stop
        self._waits_for = "the services are starting"

    async def run(self, services: Sequence[Service], settings: Settings) -> None:
        """Start them, as soon as that is possible, and let them work until one fails or `stop` is set."""
        delay = _FIRST_DELAY
        while True:
            try:
                async with running(services, settings) as instances:
                    self.instances = instances
                    settle_garbage_collector(settings.max_in_flight * len(services))
                    await self._until_one_fails(instances)
                    return
            except _PASSING as error:
                if self._stop.is_set():
                    raise
                begun, self.instances, self._waits_for = self.instances is not None, None, str(error)
                what = "cannot go on, starting again" if begun else "cannot start yet, trying again"
                _log.error(what, reason=str(error), delay=delay)
            await asyncio.sleep(delay)
            delay = min(_MAX_DELAY, delay * 2)

    async def _until_one_fails(self, instances: dict[str, Instance]) -> None:
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(each.failure()) for each in instances.values()]
        ends.append(asyncio.ensure_future(self._stop.wait()))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for waiting in ends:
                waiting.cancel()

    async def failures(self) -> list[str]:
        """Why services cannot go on; that the loop answers at all says the rest."""
        instances = (self.instances or {}).items()
        return [f"{name}: {instance.failed}" for name, instance in instances if instance.failed is not None]

    async def obstacles(self) -> list[str]:
        """Why nobody should count on the services just now."""
        if self._stop.is_set():
            return ["the services are stopping"]
        if self.instances is None:
            return [self._waits_for]
        looks = await asyncio.gather(*(instance.obstacles() for instance in self.instances.values()))
        return [f"{name}: {why}" for name, found in zip(self.instances, looks, strict=True) for why in found]


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

"""Running services: opening what they share, starting them, and stopping them gracefully."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from choreo.choreography import Choreography, topic_settings
from choreo.errors import UnknownTopicError
from choreo.log import Log, Topic, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.settings import Settings
from choreo.service import Service
from choreo.wire import Codec, open_registry

_log = structlog.get_logger("choreo.runtime")


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

    Raises:
        ChoreoError: they cannot start, or one of them cannot go on; the others have been stopped.
    """
    async with running(services, settings) as instances:
        stopping = asyncio.ensure_future(stop.wait())
        failures = [asyncio.ensure_future(instance.failure()) for instance in instances.values()]
        try:
            done, _ = await asyncio.wait({stopping, *failures}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for waiting in (stopping, *failures):
                waiting.cancel()


async def ensure_topics(log: Log, topics: Sequence[str], *, create: bool) -> None:
    """Check that these topics exist, or create those that do not.

    Raises:
        UnknownTopicError: some do not exist and may not be created; all are named.
    """
    missing = sorted(set(topics) - set(await log.topics()))
    if not missing:
        return
    if not create:
        raise UnknownTopicError(
            f"the log {log.url} has no topics {', '.join(missing)}",
            remedy="create them with `choreo topics create MODULE`, or run with --create-topics",
        )
    created = await log.create_topics([Topic(name=name, settings=topic_settings(name)) for name in missing])
    if created:
        _log.info("topics created", topics=", ".join(created))

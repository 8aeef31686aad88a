"""Waiting for a condition, and the small helpers that many tests share."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from choreo import Service
from choreo.choreography import Choreography
from choreo.log import Topic, open_log

PATIENCE = 15.0
"""Seconds after which a condition counts as never true; far more than any of them takes."""


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], what: Callable[[], Any] | str = "", *, patience: float = PATIENCE
) -> Any:
    """Wait until the condition holds; returns what it returned.

    Args:
        condition: asked again and again; an exception it raises ends the wait at once.
        what: told when it never holds: text, or a call that says how things stand.
        patience: seconds until it is given up.
    """
    clock = asyncio.get_running_loop()
    deadline = clock.time() + patience
    while True:
        asked = clock.time()
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if clock.time() > deadline:
            told = what() if callable(what) else what or inspect.getsource(condition).strip()
            raise AssertionError(f"never true: {told}")
        await asyncio.sleep(max(0.005, clock.time() - asked))  # what is awaited gets half of the time at least


async def keep_for_ever(services: Sequence[Service], url: str) -> None:
    """Give a log the topics of services, to be kept for ever: some flows have events of last month, which retention would take away."""
    async with open_log(url) as log:
        topics = [Topic(name=name, settings={"retention.ms": "-1"}) for name in Choreography.of(services).topics]
        await log.create_topics(topics)
        there = await log.topics()
        for topic in topics:
            await log.change_topic(replace(topic, partitions=there[topic.name].partitions))

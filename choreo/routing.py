"""Events whose topic depends on what they carry: heavy ones, say, go to a pool of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from choreo.errors import DeclarationError

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


@dataclass(frozen=True)
class Route:
    """A choice among topics.

    Attributes:
        choose: names the topic of one event.
        among: the topics it may name.
    """

    choose: Callable[[Any], str]
    among: tuple[str, ...]


def route(choose: Callable[[Any], str], *, among: tuple[str, ...]) -> Route:
    """Let each event of a class choose its topic when it is published.

        def pool(file: FileArrived) -> str:
            return "files.large" if file.size > 10_000_000 else "files"

        class FileArrived(Event, topic=route(pool, among=("files", "files.large")), key="tenant"):
            tenant: str
            size: int

    Who handles the class reads all these topics. A service for one of them alone declares a view of the event:

        class LargeFile(FileArrived, topic="files.large", key="tenant", name="FileArrived"): ...

    Events of one key keep their order within a topic, not across topics.

    Args:
        choose: gets the event; must name the same topic whenever the same event is published again.
        among: all topics that it may name, at least two. Another one is an EncodeError when the event is published.

    Raises:
        DeclarationError: at import, when `choose` cannot be called, or `among` does not name two or more topics.
    """
    if not callable(choose):
        raise DeclarationError(
            f"route({choose!r}) cannot be called", remedy="give it a function: route(pool, among=...)"
        )
    if not isinstance(among, (tuple, list)) or len(set(among)) < 2:  # noqa: PLR2004 - a choice has two sides
        raise DeclarationError(
            f"route(among={among!r}) leaves no choice", remedy="name two topics or more: among=('files', 'files.large')"
        )
    return Route(choose, tuple(dict.fromkeys(among)))


def topics_of(topic: str | Route, what: str) -> tuple[str, ...]:
    """The topics that a class names.

    Raises:
        DeclarationError: one is no legal Kafka topic.
    """
    topics = topic.among if isinstance(topic, Route) else (topic,)
    for name in topics:
        if not isinstance(name, str) or not _TOPIC.match(name) or name in {".", ".."}:
            raise DeclarationError(
                f"{what} names topic {name!r}, which is no legal Kafka topic",
                remedy="use 1 to 249 letters, digits, '.', '_' or '-'",
            )
    return topics

"""What a trial has left behind in the log, and the order of causes in it. For demos and tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from choreo import Metadata, Settings
from choreo.errors import SchemaNotCachedError
from choreo.log import Log, Record, TopicPartition
from choreo.log.reader import Reader
from choreo.wire import Codec, open_registry
from services.trial import Ends


class Seen(NamedTuple):
    """An event as it lies in the log.

    Attributes:
        data: its fields.
    """

    metadata: Metadata
    data: dict[str, Any]
    at: TopicPartition
    offset: int


async def events(log: Log, settings: Settings, topics: Sequence[str], since: Ends) -> list[Seen]:
    """The events that came into these topics since then, each once by its id, whatever copies there are."""
    found: dict[str, Seen] = {}
    async with aclosing(open_registry(settings.registry)) as registry:
        codec = Codec(registry)
        async with Reader(log, {at: end for at, end in since.items() if at.topic in topics}) as reader:
            async for record in reader.catch_up():
                seen = await _seen(record, codec)
                found.setdefault(seen.metadata.event_id, seen)
    return list(found.values())


async def _seen(record: Record, codec: Codec) -> Seen:
    at = TopicPartition(record.topic, record.partition)
    while True:
        try:
            return Seen(codec.metadata(record), codec.decode_any(record)[1], at, record.offset)
        except SchemaNotCachedError as missing:
            await codec.load(missing.schema_id)


def in_causal_order(saga: Iterable[Seen]) -> Iterator[tuple[int, Seen]]:
    """The events of one saga, each behind its cause, with how many causes it has: 0 for the first.

    Clocks are not asked: those of two machines differ. Effects of one cause come by topic, partition and offset.
    """
    by_place = sorted(saga, key=lambda seen: (seen.at, seen.offset))
    known = {seen.metadata.event_id for seen in by_place}
    effects: dict[str | None, list[Seen]] = {}
    for seen in by_place:
        cause = seen.metadata.causation_id
        effects.setdefault(cause if cause in known else None, []).append(seen)

    def below(cause: str | None, depth: int) -> Iterator[tuple[int, Seen]]:
        for seen in effects.get(cause, ()):
            yield depth, seen
            yield from below(seen.metadata.event_id, depth + 1)

    return below(None, 0)

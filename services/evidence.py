"""What a trial has left behind, rows in stores and events in the log, and how it differs from what must be there.

The demos and the tests of all flows look at these; no service does.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, NamedTuple

from choreo import Metadata, Settings
from choreo.errors import SchemaNotCachedError
from choreo.log import Log, Record, TopicPartition
from choreo.log.reader import Reader
from choreo.wire import Codec, open_registry
from services.trial import Ends

_SHOWN = 5


def rows(stores: str, service: str, sql: str) -> list[tuple[Any, ...]]:
    """What a query finds in a service's store.

    Args:
        stores: where all stores are, `sqlite:///folder/{service}.db`.
    """
    path = Path(stores.removeprefix("sqlite:///").replace("{service}", service)).absolute()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def differences(what: str, found: Iterable[Hashable], expected: Iterable[Hashable]) -> list[str]:
    """A sentence for each thing that is there too often or not often enough; a long list is cut.

    Args:
        what: what they are things of, such as `payments: charges`.
    """
    there, wanted = Counter(found), Counter(expected)
    wrong = [one for one in {**wanted, **there} if there[one] != wanted[one]]
    said = [f"{what}: {_words(one)} is there {there[one]} times, and should {wanted[one]}" for one in wrong[:_SHOWN]]
    return said if len(wrong) <= _SHOWN else [*said, f"{what}: {len(wrong) - _SHOWN} more are wrong"]


def _words(one: object) -> str:
    return " ".join(map(str, one)) if isinstance(one, tuple) else str(one)


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

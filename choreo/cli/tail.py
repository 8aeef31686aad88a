"""`choreo topics tail`: what lies in the log, and what comes, readable."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from choreo.cli.common import (
    JsonOption,
    LogOption,
    RegistryOption,
    console,
    json_text,
    print_json,
    run_async,
    settings_with,
)
from choreo.durations import seconds
from choreo.errors import SchemaNotCachedError, UnknownTopicError, WireError
from choreo.log import Consumer, Log, Record, TopicPartition, open_log

if TYPE_CHECKING:
    from choreo.runtime.settings import Settings
    from choreo.wire import Codec

Row: TypeAlias = dict[str, Any]
Show: TypeAlias = Callable[[Row], None]

EXAMPLES = """Examples:

choreo topics tail orders --follow

choreo topics tail --since 10m --type OrderPlaced

choreo topics tail --saga 0198c3f2-... --json"""

_SILENCE = 5.0
"""Seconds without a record that count as the end: the last offsets of a partition may be transaction markers."""


class Wanted(NamedTuple):
    """The last `last` records that match (None: all), from `since` (ms) on, of these types (if any) and this saga."""

    last: int | None
    since: int | None
    types: frozenset[str]
    saga: str | None


def tail(
    topics: Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="All topics unless given.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only events of this type.")] = None,
    saga: Annotated[str | None, typer.Option(metavar="ID", help="All of one saga (correlation id).")] = None,
    last: Annotated[int, typer.Option("-n", min=0, help="How many of the last records.")] = 10,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All records; -n does not count.")] = False,
    since: Annotated[str | None, typer.Option(metavar="10m", help="All records since; -n does not count.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on with what comes.")] = False,
    log: LogOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show records: time, type, key, place, the ids that link events, and their data.

    What cannot be decoded is shown as such, with the reason.
    """
    start = None if since is None else int((time.time() - seconds(since)) * 1000)
    unbounded = from_beginning or since is not None or saga is not None
    wanted = Wanted(None if unbounded else last, start, frozenset(types or []), saga)
    settings = settings_with(log=log, registry=registry)
    run_async(_tail(settings, topics or [], wanted, print_json if as_json else _print_row, follow=follow))


async def _tail(settings: Settings, names: list[str], wanted: Wanted, show: Show, *, follow: bool) -> None:
    from choreo.wire import Codec, open_registry

    async with open_log(settings.log, settings.kafka) as log, aclosing(open_registry(settings.registry)) as registry:
        partitions = await _partitions(log, names)
        ends = await log.end_offsets(partitions)
        starts = await _starts(log, ends, wanted)
        reader = log.consumer(sorted({p.topic for p in partitions}), listener=StartAt(starts))
        try:
            describe, kept = _Describer(Codec(registry)), _Kept(wanted.last)
            at_once = wanted.last is None and wanted.saga is None  # too many to hold: as they come, unsorted
            async for record in until(reader, {p: end for p, end in ends.items() if starts[p] < end}):
                if _matches(row := await describe(record), wanted):
                    (show if at_once else kept.add)(row)
            for row in kept.in_order():
                show(row)
            while follow:
                for record in await reader.poll():
                    if _matches(row := await describe(record), wanted):
                        show(row)
        finally:
            await reader.close()


async def _partitions(log: Log, names: list[str]) -> list[TopicPartition]:
    known = await log.topics()
    missing = sorted(set(names) - set(known))
    if missing or not known:
        raise UnknownTopicError(f"the log {log.url} has no topics {', '.join(missing)}".rstrip())
    return [TopicPartition(name, number) for name in names or known for number in range(known[name].partitions)]


async def _starts(log: Log, ends: Mapping[TopicPartition, int], wanted: Wanted) -> dict[TopicPartition, int]:
    begins = await log.beginning_offsets(ends)
    if wanted.since is not None:
        return {**begins, **await log.offsets_at(wanted.since, ends)}
    if wanted.last is None or wanted.types:  # what matches may lie anywhere
        return begins
    return {partition: max(begins[partition], end - wanted.last) for partition, end in ends.items()}


class StartAt:
    """The listener of a reader that begins at given offsets."""

    def __init__(self, starts: Mapping[TopicPartition, int]) -> None:
        self._starts = starts

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to begin."""
        return {partition: self._starts[partition] for partition in partitions if partition in self._starts}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """A reader without a group keeps its partitions."""

    lost = revoked


async def until(reader: Consumer, ends: dict[TopicPartition, int]) -> AsyncIterator[Record]:
    """The records of a reader until these offsets are reached."""
    while ends:
        records = await reader.poll(timeout=_SILENCE)
        if not records:
            return
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            if record.offset + 1 >= ends.get(place, 0):
                ends.pop(place, None)
            yield record


class _Kept:
    """The last rows by time, effects after their causes where the time is the same."""

    def __init__(self, last: int | None) -> None:
        self._last, self._rows = last, list[Row]()

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if self._last is not None and len(self._rows) > 2 * self._last + 1000:
            self._rows = self.in_order()

    def in_order(self) -> list[Row]:
        by_id = {row.get("event_id"): row for row in self._rows}

        def depth(row: Row) -> int:
            steps, cause = 0, by_id.get(row.get("causation_id"))
            while cause is not None and steps < len(by_id):
                steps, cause = steps + 1, by_id.get(cause.get("causation_id"))
            return steps

        rows = sorted(self._rows, key=lambda row: (row["time"], depth(row)))
        return rows if self._last is None else rows[max(0, len(rows) - self._last) :]


def _matches(row: Row, wanted: Wanted) -> bool:
    if wanted.types and row.get("type") not in wanted.types:
        return False
    return wanted.saga is None or row.get("correlation_id") == wanted.saga


class _Describer:
    """Makes a row of a record; never fails for what is in one."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._lacking: dict[int | str, WireError] = {}

    async def __call__(self, record: Record) -> Row:
        row: Row = {
            "time": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
        }
        reason = dict(record.headers).get("__dlq.errors.message")
        if reason is not None:
            row["dead_letter"] = reason.decode(errors="backslashreplace")
        try:
            meta = self._codec.metadata(record)
            row |= {"type": meta.type_name, "event_id": meta.event_id, "source": meta.source}
            row |= {"causation_id": meta.causation_id, "correlation_id": meta.correlation_id}
            type_name, row["data"] = await self._decoded(record)
            row["type"] = meta.type_name or type_name
        except WireError as error:
            row["undecodable"] = str(error)
        return row

    async def _decoded(self, record: Record) -> tuple[str, dict[str, Any]]:
        try:
            return self._codec.decode_any(record)
        except SchemaNotCachedError as error:
            if error.schema_id in self._lacking:  # ask the registry once, not once per record
                raise self._lacking[error.schema_id] from None
            try:
                await self._codec.load(error.schema_id)
            except WireError as lacking:
                self._lacking[error.schema_id] = lacking
                raise
            return self._codec.decode_any(record)


def _print_row(row: Row) -> None:
    from rich.text import Text

    out = console()
    place = f"{row['topic']}/{row['partition']}@{row['offset']}"
    key = "no key" if row["key"] is None else f"key {row['key']}"
    out.print(Text.assemble((row["time"], "dim"), "  ", (row.get("type") or "?", "bold"), f"  {key}  ", (place, "dim")))
    ids = [("event", row.get("event_id")), ("cause", row.get("causation_id")), ("saga", row.get("correlation_id"))]
    texts = [f"{name} {id_}" for name, id_ in ids if id_]
    one_line = sum(map(len, texts)) + 2 * len(texts) < out.width
    out.print(*([Text("  " + "  ".join(texts))] if one_line else [Text(f"  {text}") for text in texts]), sep="\n")
    for name, style in (("dead_letter", "red"), ("undecodable", "red"), ("data", "")):
        if name in row:
            text = json_text(row[name]) if name == "data" else f"{name.replace('_', ' ')}: {row[name]}"
            out.print(Text(f"  {text}", style), soft_wrap=True)

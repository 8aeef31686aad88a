"""`choreo topics tail`: what lies in the log, and what comes, readable."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from choreo.cli.common import (
    PROBE_TOPIC,
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
from choreo.errors import DecodeError, SchemaNotCachedError, SchemaNotFoundError, UnknownTopicError
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
            codec, kept = Codec(registry), list[Row]()
            at_once = wanted.last is None and wanted.saga is None  # too many to hold: as they come, unsorted
            async for record in until(reader, {p: end for p, end in ends.items() if starts[p] < end}):
                if _matches(row := await _row(record, codec), wanted):
                    show(row) if at_once else kept.append(row)
                    if wanted.last is not None and len(kept) > 2 * wanted.last + 1000:
                        kept = _last(kept, wanted.last)
            for row in _last(kept, wanted.last):
                show(row)
            while follow:
                for record in await reader.poll():
                    if _matches(row := await _row(record, codec), wanted):
                        show(row)
        finally:
            await reader.close()


async def _partitions(log: Log, names: list[str]) -> list[TopicPartition]:
    known = await log.topics()
    missing = sorted(set(names) - set(known))
    if missing or not known:
        raise UnknownTopicError(f"the log {log.url} has no topics {', '.join(missing)}".rstrip())
    chosen = names or [name for name in known if name != PROBE_TOPIC]
    return [TopicPartition(name, number) for name in chosen for number in range(known[name].partitions)]


async def _starts(log: Log, ends: Mapping[TopicPartition, int], wanted: Wanted) -> dict[TopicPartition, int]:
    begins = await log.beginning_offsets(ends)
    if wanted.since is not None:
        return {**begins, **await log.offsets_at(wanted.since, ends)}
    if wanted.last is None or wanted.types:  # what matches may lie anywhere
        return begins
    return {partition: max(begins[partition], end - wanted.last) for partition, end in ends.items()}


@dataclass(frozen=True)
class StartAt:
    """The listener of a reader that begins at given offsets."""

    starts: Mapping[TopicPartition, int]

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to begin."""
        return {partition: self.starts[partition] for partition in partitions if partition in self.starts}

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


def _last(rows: list[Row], last: int | None) -> list[Row]:
    """The last rows by time; of one millisecond first events of sagas come first, dead letters last."""

    def place(row: Row) -> tuple[Any, ...]:
        return row["time"], "dead_letter" in row, row.get("causation_id") is not None, row.get("event_id") or ""

    rows.sort(key=place)
    return rows if last is None else rows[max(0, len(rows) - last) :]


def _matches(row: Row, wanted: Wanted) -> bool:
    if wanted.types and row.get("type") not in wanted.types:
        return False
    return wanted.saga is None or row.get("correlation_id") == wanted.saga


async def _row(record: Record, codec: Codec) -> Row:
    """What a record holds; what is wrong in it becomes part of the row."""
    row: Row = {
        "time": datetime.fromtimestamp(record.timestamp / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
    }
    reason = dict(record.headers).get("__dlq.errors.message")
    if reason is not None:
        row["dead_letter"] = reason.decode(errors="backslashreplace")
    try:
        meta = codec.metadata(record)
        row |= {"type": meta.type_name, "event_id": meta.event_id, "source": meta.source}
        row |= {"causation_id": meta.causation_id, "correlation_id": meta.correlation_id}
        type_name, row["data"] = await _decoded(record, codec)
        row["type"] = meta.type_name or type_name
    except (DecodeError, SchemaNotFoundError) as error:
        row["undecodable"] = str(error)
    return row


async def _decoded(record: Record, codec: Codec) -> tuple[str, dict[str, Any]]:
    try:
        return codec.decode_any(record)
    except SchemaNotCachedError as error:
        await codec.load(error.schema_id)
        return codec.decode_any(record)


def _print_row(row: Row) -> None:
    from rich.text import Text

    out = console()
    place = f"{row['topic']}/{row['partition']}@{row['offset']}"
    key = "no key" if row["key"] is None else f"key {_printable(row['key'])}"
    name = _printable(row.get("type") or "?")
    out.print(Text.assemble((row["time"], "dim"), "  ", (name, "bold"), f"  {key}  ", (place, "dim")), soft_wrap=True)
    ids = [("event", row.get("event_id")), ("cause", row.get("causation_id")), ("saga", row.get("correlation_id"))]
    texts = [f"  {label} {_printable(id_)}" for label, id_ in ids if id_]
    if texts:
        out.print(("" if sum(map(len, texts)) <= out.width else "\n").join(texts), soft_wrap=True)
    for label in ("dead_letter", "undecodable"):
        if label in row:
            out.print(f"  {label.replace('_', ' ')}: {_printable(row[label])}", style="red", soft_wrap=True)
    if "data" in row:
        out.print(f"  {json_text(row['data'])}", soft_wrap=True)


def _printable(text: str) -> str:
    """The text without characters that would steer the terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)

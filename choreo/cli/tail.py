"""`choreo topics tail`: what lies in topics, and what comes, readable."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from choreo import errors
from choreo.cli import common
from choreo.durations import seconds
from choreo.log import Log, Record, TopicPartition, open_log
from choreo.log.reader import Reader, partitions_of
from choreo.printable import printable
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from choreo.wire import Codec

Names = list[str] | None
Row: TypeAlias = dict[str, Any]
Show: TypeAlias = Callable[[Row], None]

_ORDER = ("time", "dead_letter", "causation_id", "event_id")
"""Rows are sorted by these: of one millisecond dead letters are the last, first events of sagas the first."""

EXAMPLES = "Examples:\n\nchoreo topics tail orders --follow\n\nchoreo topics tail --saga 0198c3f2-... --json"


def tail(
    topics: Annotated[Names, typer.Argument(metavar="TOPIC", help="All topics unless given.")] = None,
    saga: Annotated[str | None, typer.Option(metavar="ID", help="All of one saga (correlation id).")] = None,
    last: Annotated[int, typer.Option("-n", min=0, help="How many of the last records.")] = 10,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All records; -n does not count.")] = False,
    since: Annotated[str | None, typer.Option(metavar="10m", help="All records since; -n does not count.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    log: common.LogOption = None,
    registry: common.RegistryOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show records: time, type, key, place, the ids that link events, and their data.

    What cannot be decoded is shown as such, with the reason.
    """
    start = None if since is None else int((time.time() - seconds(since)) * 1000)
    last = sys.maxsize if from_beginning or since is not None or saga is not None else last
    settings, show = common.settings_with(log=log, registry=registry), common.print_json if as_json else _print
    common.run_async(_tail(settings, topics or [], start, last, saga, show, follow=follow))


async def _tail(
    settings: Settings, names: list[str], since: int | None, last: int, saga: str | None, show: Show, *, follow: bool
) -> None:
    """Show the `last` records, from `since` (ms) on: few (or a saga's) by time, many and later ones as they come."""
    from choreo.wire import Codec, open_registry

    async with (
        open_log(settings.log, settings.kafka, make=False) as log,
        aclosing(open_registry(settings.registry)) as registry,
    ):
        codec = Codec(registry)

        async def rows(records: AsyncIterator[Record]) -> AsyncIterator[Row]:
            async for record in records:
                row = await _row(record, codec)
                if saga in {None, row.get("correlation_id")}:
                    yield row

        async with Reader(log, await _starts(log, names, since, last)) as reader:
            found = rows(reader.catch_up())
            if saga is not None or last < sys.maxsize:
                by_time = sorted([row async for row in found], key=lambda row: [row.get(name) or "" for name in _ORDER])
                for row in by_time[-last:]:
                    show(row)
            async for row in found:
                show(row)
            if follow:
                async for row in rows(reader.follow()):
                    show(row)


async def _starts(log: Log, names: list[str], since: int | None, last: int) -> dict[TopicPartition, int]:
    """Where to start in all partitions of these topics."""
    wanted = names or list(await log.topics())
    if not wanted:
        raise errors.UnknownTopicError(f"the log {log.url} has no topics")
    places = await partitions_of(log, wanted)
    if since is not None:
        return await log.offsets_at(since, places)
    begins, ends = await log.beginning_offsets(places), await log.end_offsets(places)
    return {place: max(begins[place], end - last) for place, end in ends.items()}


async def _row(record: Record, codec: Codec) -> Row:
    """What a record holds; what is wrong in it becomes part of the row."""
    when = datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    row: Row = {"time": when.replace("+00:00", "Z"), "topic": record.topic, "partition": record.partition}
    row["offset"] = record.offset
    row["key"] = None if record.key is None else record.key.decode(errors="backslashreplace")
    for reason in [value for name, value in record.headers if name == "__dlq.errors.message"]:
        row["dead_letter"] = reason.decode(errors="backslashreplace")
    try:
        meta = codec.metadata(record)
        row |= {"type": meta.type_name, "event_id": meta.event_id, "source": meta.source}
        row |= {"causation_id": meta.causation_id, "correlation_id": meta.correlation_id}
        try:
            type_name, row["data"] = codec.decode_any(record)
        except errors.SchemaNotCachedError as error:
            await codec.load(error.schema_id)
            type_name, row["data"] = codec.decode_any(record)
        row["type"] = meta.type_name or type_name
    except (errors.DecodeError, errors.SchemaNotFoundError) as error:
        row["undecodable"] = str(error)
    return row


def _print(row: Row) -> None:
    key = "no key" if row["key"] is None else f"key {printable(row['key'])}"
    time_, name = typer.style(row["time"], dim=True), typer.style(printable(row.get("type") or "?"), bold=True)
    typer.echo(f"{time_}  {name}  {key}  {row['topic']}/{row['partition']}@{row['offset']}")
    ids = {"event": row.get("event_id"), "cause": row.get("causation_id"), "saga": row.get("correlation_id")}
    if linked := "".join(f"  {label} {printable(id_)}" for label, id_ in ids.items() if id_):
        typer.echo(linked)
    for label in ("dead_letter", "undecodable"):
        if label in row:
            typer.secho(f"  {label.replace('_', ' ')}: {printable(row[label])}", fg="red")
    if "data" in row:
        typer.echo(f"  {printable(common.json_text(row['data']))}")

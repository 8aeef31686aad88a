"""`choreo topics tail`: what lies in topics, and what comes, readable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from choreo import errors
from choreo.cli import common
from choreo.durations import seconds
from choreo.log import Log, Record, TopicPartition, open_log
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from choreo.wire import Codec

Names = list[str] | None
Row: TypeAlias = dict[str, Any]
Show: TypeAlias = Callable[[Row], None]
Offsets: TypeAlias = dict[TopicPartition, int]

_SILENCE = 5.0
"""Seconds without a record that count as the end: the last offsets of a partition may be transaction markers."""

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

    async with open_log(settings.log, settings.kafka) as log, aclosing(open_registry(settings.registry)) as registry:
        starts, ends = await _bounds(log, names, since, last)
        held, rows, codec = bool(ends) and (saga is not None or last < sys.maxsize), [], Codec(registry)
        reader = log.consumer(sorted({place.topic for place in starts}), listener=_StartAt(starts))
        try:
            while ends or follow:
                records = await reader.poll(timeout=_SILENCE if ends else None)
                for record in records:
                    row, place = await _row(record, codec), TopicPartition(record.topic, record.partition)
                    if saga in {None, row.get("correlation_id")}:
                        rows.append(row)
                    if record.offset + 1 >= ends.get(place, sys.maxsize):
                        del ends[place]
                ends = ends if records else {}
                if held and not ends:
                    rows.sort(key=lambda row: [row.get(name) or "" for name in _ORDER])
                    rows, held = rows[-last:], False
                if not held:
                    for row in rows:
                        show(row)
                    rows = []
        finally:
            await reader.close()


async def _bounds(log: Log, names: list[str], since: int | None, last: int) -> tuple[Offsets, Offsets]:
    """Where to start in all partitions of these topics, and where those end that have something to show."""
    known = await log.topics()
    missing = sorted(set(names) - set(known))
    if missing or not known:
        raise errors.UnknownTopicError(f"the log {log.url} has no topics {', '.join(missing)}".rstrip())
    places = [TopicPartition(name, n) for name in names or known for n in range(known[name].partitions)]
    ends = await log.end_offsets(places)
    if since is None:
        begins = await log.beginning_offsets(ends)
        starts = {place: max(begins[place], end - last) for place, end in ends.items()}
    else:
        starts = await log.offsets_at(since, ends)
    return starts, {place: end for place, end in ends.items() if starts[place] < end}


@dataclass(frozen=True)
class _StartAt:
    """The listener of a reader without a group: it begins at given offsets and keeps its partitions."""

    starts: Offsets

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Offsets:
        return {place: self.starts[place] for place in partitions if place in self.starts}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass

    lost = revoked


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
    key = "no key" if row["key"] is None else f"key {common.printable(row['key'])}"
    time_, name = typer.style(row["time"], dim=True), typer.style(common.printable(row.get("type") or "?"), bold=True)
    typer.echo(f"{time_}  {name}  {key}  {row['topic']}/{row['partition']}@{row['offset']}")
    ids = {"event": row.get("event_id"), "cause": row.get("causation_id"), "saga": row.get("correlation_id")}
    if linked := "".join(f"  {label} {common.printable(id_)}" for label, id_ in ids.items() if id_):
        typer.echo(linked)
    for label in ("dead_letter", "undecodable"):
        if label in row:
            typer.secho(f"  {label.replace('_', ' ')}: {common.printable(row[label])}", fg="red")
    if "data" in row:
        typer.echo(f"  {common.printable(common.json_text(row['data']))}")

"""Rebuilds the clicks of one day from the log, and compares them with the loader's table.

    python -m services.lake.replay --day 2026-11-24 --out tuesday.csv

The log is read from the moment at which that day began, to its present end: clicks may come late, but not before they happen.
Nothing is published or committed, no consumer group is joined, and a replay that is interrupted is simply started again.
The exit code is 1 if the two tables differ. Where log, schemas and stores are, CHOREO_LOG, CHOREO_REGISTRY and CHOREO_STORE say.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Iterable
from contextlib import aclosing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

from choreo import Settings
from choreo.errors import SchemaNotCachedError
from choreo.log import Log, Record, open_log
from choreo.log.reader import Reader, partitions_of
from choreo.observe.logs import configure_logging
from choreo.wire import Codec, open_registry
from services.books import rows
from services.lake.events import Clicked
from services.lake.loader import ClickRow, loader, row_of

_SKEW_MS = 3_600_000
"""A visitor's clock may be so much ahead of the log's."""


class Replay(NamedTuple):
    """A day's clicks, as the log tells them and as the loader has them, in their canonical form."""

    from_log: bytes
    from_table: bytes

    @property
    def is_same(self) -> bool:
        """Whether they are equal, byte for byte."""
        return self.from_log == self.from_table


async def replay(settings: Settings, day: date, log: Log | None = None) -> Replay:
    """Rebuild a day, and compare.

    Args:
        log: a connected log to use instead of opening `settings.log`.
    """
    if log is None:
        async with open_log(settings.log, settings.kafka) as opened:
            return await replay(settings, day, opened)
    table = "SELECT day, at, click_id, visitor, page FROM clicks"
    stored = rows(settings.store, loader.name, f"{table} WHERE day = '{day.isoformat()}'")
    return Replay(canonical(await rebuilt(settings, day, log)), canonical(stored))


async def rebuilt(settings: Settings, day: date, log: Log) -> list[ClickRow]:
    """The rows of a day's clicks, from the log: each event once, whatever copies there are."""
    begin_ms = round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    (topic,) = Clicked.contract.topics
    starts = await log.offsets_at(begin_ms - _SKEW_MS, await partitions_of(log, [topic]))
    found: dict[tuple[str, str], ClickRow] = {}
    async with aclosing(open_registry(settings.registry)) as registry:
        codec = Codec(registry)
        async with Reader(log, starts) as reader:
            async for record in reader.catch_up():
                metadata = codec.metadata(record)
                row = row_of(await _click(record, codec))
                if row[0] == day.isoformat():
                    found.setdefault((metadata.source, metadata.event_id), row)
    return list(found.values())


async def _click(record: Record, codec: Codec) -> Clicked:
    while True:
        try:
            return codec.decode(record, Clicked)
        except SchemaNotCachedError as missing:
            await codec.load(missing.schema_id)


def canonical(clicks: Iterable[tuple[str, ...]]) -> bytes:
    """A table as a file that has one form: rows in order of their columns, tabs between these."""
    return "".join("\t".join(row) + "\n" for row in sorted(clicks)).encode()


async def main() -> int:
    """Replay the day that the command line names; 1 if the tables differ."""
    description = __doc__.partition("\n")[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m services.lake.replay", description=description)
    parser.add_argument("--day", type=date.fromisoformat, required=True, help="such as 2026-11-24")
    parser.add_argument("--out", type=Path, help="where to write the rebuilt table")
    given = parser.parse_args()
    configure_logging(level="warning")
    made = await replay(Settings(), given.day)
    if given.out:
        given.out.write_bytes(made.from_log)
    for where, content in (("log", made.from_log), ("table", made.from_table)):
        clicks, digest = content.count(b"\n"), hashlib.sha256(content).hexdigest()
        print(f"{where:6} {clicks:>9,} clicks of {given.day}, sha256 {digest}")  # noqa: T201 - a command
    print("equal" if made.is_same else "they differ")  # noqa: T201
    return 0 if made.is_same else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

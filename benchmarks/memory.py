"""Is memory bounded, and does an event cost the same however much the inbox holds?

    python benchmarks/memory.py [--behind N] [--inbox N N ...] [--json]

First the most memory (resident) of a service that begins N records behind. Then CPU seconds per 100,000 events with so
many rows in the inbox already, SQLite and PostgreSQL: rows such as a service leaves behind, keys that begin with the
time of their saga, the last ones just now.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import options
from bench import Bench, Contestant
from throughput import note

SPACING = 6
"""Milliseconds between two events of the past."""
_CHUNK = 100_000


def keys(count: int) -> Iterator[bytes]:
    now_ms = int(time.time() * 1000)
    for number in range(count):
        yield (now_ms - (count - number) * SPACING).to_bytes(6, "big") + os.urandom(10)


def filled_sqlite(rows: int) -> Callable[[str, str], None]:
    def prepare(url: str, service: str) -> None:
        import sqlite3

        from choreo.store import make_store

        asyncio.run(opened(make_store(url), service))
        now_ms, connection = int(time.time() * 1000), sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO choreo_inbox (key, at) VALUES (?, ?)", ((key, now_ms) for key in keys(rows))
        )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    return prepare


def filled_postgres(rows: int) -> Callable[[str, str], None]:
    def prepare(url: str, service: str) -> None:
        import psycopg

        from choreo.store import make_store
        from choreo.store.postgres.address import schema_of

        asyncio.run(opened(make_store(url), service))
        now_ms = int(time.time() * 1000)
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            with cursor.copy(f"COPY {schema_of(service)}.choreo_inbox (key, at) FROM STDIN") as copy:
                for key in keys(rows):
                    copy.write_row((key, now_ms))
            connection.commit()
            connection.autocommit = True
            cursor.execute(f"VACUUM ANALYZE {schema_of(service)}.choreo_inbox")

    return prepare


async def opened(store: Any, service: str) -> None:
    """Its tables are made."""
    await store.open(service)
    await store.close()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.servers.postgres import PostgresServer

    report: dict[str, Any] = {"peak_mb": {}, "cpu_seconds_per_100k": {}}
    command = (sys.executable, "by_choreo.py", "store")
    with ExitStack() as stack:
        sqlite, postgres = "sqlite:///{folder}/{{service}}.db", stack.enter_context(PostgresServer()).url
        bench = Bench(arguments.behind, stack, arguments.kafka)
        for name, store in (("sqlite", sqlite), ("postgres", postgres)):
            report["peak_mb"][name] = bench.run(Contestant(name, command, store)).peak
            note(f"{name}: at most {report['peak_mb'][name]:.0f} MB, {arguments.behind:,} records behind")
        for name, store, filled in (("sqlite", sqlite, filled_sqlite), ("postgres", postgres, filled_postgres)):
            found: dict[int, float] = {}
            for _ in range(arguments.rounds):
                for rows in arguments.inbox:
                    run = bench.run(Contestant(name, command, store, prepare=filled(rows)), arguments.events)
                    cost = run.cpu / arguments.events * 100_000
                    found[rows] = min(cost, found.get(rows, cost))
                    note(f"{name}: {cost:.2f} CPU s per 100,000 events with {rows:,} rows in the inbox")
            report["cpu_seconds_per_100k"][name] = found
    return report


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--behind", type=int, default=1_000_000)
    parser.add_argument("--inbox", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    report = measure(arguments)
    behind = (
        f"{name:10} {peak:.0f} MB at most, {arguments.behind:,} records behind"
        for name, peak in report["peak_mb"].items()
    )
    costs = (
        f"{name:10} {cost:.2f} CPU s per 100,000 events with {rows:,} rows in the inbox"
        for name, costs in report["cpu_seconds_per_100k"].items()
        for rows, cost in costs.items()
    )
    options.tell(arguments, report, [*behind, *costs])


if __name__ == "__main__":
    main()

"""Batches on a real broker: rebalances under load, an owner that is killed, a record that fails."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from choreo import BatchContext, Retry, Service, Settings
from choreo.log import TopicPartition, open_log
from tests.integration.kafka_shop import KEYS, QUICK, Shop
from tests.support import eventually

pytestmark = pytest.mark.kafka
BAD = 300


class Lake(Shop):
    """The service loads orders in batches, and fails at one of them."""

    def service(self, *, transactional: bool = False) -> Service:
        """The service; each call makes another of the same name."""
        service = Service(self.name, tables="CREATE TABLE IF NOT EXISTS effects (id TEXT, n INTEGER)")
        ordered, charged = self.ordered, self.charged

        async def load(orders: Any, ctx: BatchContext) -> Any:
            rows = [(order.id, order.n) for order in orders]
            await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", rows)
            await asyncio.sleep(0.002)
            if any(order.n == BAD for order in orders):
                raise ValueError("bad")
            return [charged(id=order.id, n=order.n) for order in orders]

        load.__annotations__ = {"orders": list[ordered], "return": list[charged]}  # type: ignore[valid-type]
        service.batch(ordered, max_size=20, max_age="50ms", retry=Retry(attempts=2, delay=0, max_delay=0))(load)
        return service

    def rows(self) -> list[int]:
        """The orders that are durable in the store, in the order of their loading; none while there is no store."""
        file = Path(self.settings.store_of(self.name, None).removeprefix("sqlite:///").partition("?")[0])
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'effects'").fetchall()
            return [n for (n,) in connection.execute("SELECT n FROM effects ORDER BY rowid")] if found else []


async def test_rebalances_and_a_killed_owner_lose_and_double_nothing(kafka_bootstrap, tmp_path):
    lake = Lake(kafka_bootstrap, tmp_path, QUICK)
    await lake.make_topics()
    command = [sys.executable, "-m", "tests.integration.test_kafka_batches", lake.run, lake.settings.model_dump_json()]
    child = await asyncio.create_subprocess_exec(*command)
    try:
        await lake.publish(0, 200)
        await eventually(lambda: len(lake.rows()) > 50, patience=40)
        child.send_signal(signal.SIGKILL)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    async with lake.running(transactional=False) as steady:
        for published in range(200, 800, 200):
            async with lake.running(transactional=False) as other:
                await lake.publish(published, published + 200)
                await eventually(lambda other=other: len(other[lake.name]._owned) == 4, patience=40)
        good = [n for n in range(800) if n != BAD]
        await eventually(lambda: len(lake.rows()) == len(good), lambda: len(lake.rows()), patience=40)
        numbers = list(dict.fromkeys(await lake.handled(len(good))))
        await eventually(lambda: not steady[lake.name]._publisher.backlog)
        async with open_log(lake.settings.log) as log:
            ends = await log.end_offsets([TopicPartition(f"dlq.{lake.name}", n) for n in range(4)])
    assert sum(ends.values()) == 1
    assert sorted(lake.rows()) == good
    for loaded in (lake.rows(), numbers):
        assert [[n for n in loaded if n % KEYS == key] for key in range(KEYS)] == [
            [n for n in range(key, 800, KEYS) if n != BAD] for key in range(KEYS)
        ]


async def main(run: str, settings: str) -> None:
    """Run until killed."""
    given = Settings(**json.loads(settings))
    lake = Lake(given.log.removeprefix("kafka://"), Path(given.registry).parent, given.kafka, run)
    async with lake.running(transactional=False):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

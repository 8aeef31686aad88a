"""Publishing: a key's events in order, each until it is acknowledged, so that what must happen is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from choreo import Bus
from choreo.errors import LogError, WireError
from choreo.log import Log, NewRecord, Record
from choreo.wire.ids import new_event_id
from tests.chaos.evidence import Seen, read_log
from tests.chaos.world import Fate, Placed

KEYS = [f"k{number}" for number in range(40)]
REFUSING = {"k0", "k1", "k2"}
"""Only these keys have events that `pack` refuses: with parking, what comes later waits behind them."""
_COPYABLE = ["chaos.charge", "chaos.pack", "chaos.paid", "chaos.booked", "chaos.packed"]
_AGAIN = 0.2


class Feed:
    """Publishes events of all fates, copies of them, and garbage.

    Attributes:
        published: what is known to be in the log, by event id.
        garbage: how many records nobody can read.
        unsure: how many of such may be in the log besides, since nobody has said that they are not.
        copied: ids of records further down the tree that were copied in the log.
    """

    def __init__(self, bus: Bus, log: Log, draw: Random, *, plain: bool = False) -> None:
        self._bus, self._log, self._draw, self._plain = bus, log, draw, plain
        self._producer = log.producer()
        self._numbers: Counter[str] = Counter()
        self.published: dict[str, Seen] = {}
        self.garbage = self.unsure = 0
        self.copied: set[str] = set()

    async def close(self) -> None:
        await self._producer.close()

    async def run(self, sagas: int, seconds: float) -> None:
        """Publish so many, spread over this time (or longer, if the log does not answer)."""
        clock, per_round = asyncio.get_running_loop(), 20
        begun = clock.time()
        for number in range(0, sagas, per_round):
            await asyncio.sleep(max(0.0, begun + seconds * number / sagas - clock.time()))
            await self.publish(min(per_round, sagas - number))

    async def publish(self, count: int, fate: Fate | None = None) -> None:
        """One event of each of so many keys, of a drawn fate unless one is given; returns when all are in the log."""
        events = [self._event(key, fate) for key in self._draw.sample(KEYS, count)]
        await asyncio.gather(*(self._until_acknowledged(new_event_id(), event) for event in events))
        if not self._plain and self._draw.random() < 0.2:
            known = await self._append([NewRecord("chaos.placed", b"garbage", b"\x00\x00\x00\x00\x07?", [])])
            self.garbage, self.unsure = self.garbage + known, self.unsure + 1 - known

    async def repeat(self, count: int) -> None:
        """Publish some again that were published before, under the same ids."""
        for event_id in self._draw.sample(sorted(self.published), min(count, len(self.published))):
            seen = self.published[event_id]
            await self._until_acknowledged(event_id, Placed(key=seen.key, seq=seen.seq, fate=seen.fate))

    async def copy(self, count: int) -> None:
        """Append some records again that services have emitted."""
        records = (await self._read()).values()
        each = [record for found in records for record in found[-200:]]
        chosen = self._draw.sample(each, min(count, len(each)))
        self.copied |= {dict(record.headers)["ce_id"].decode() for record in chosen}
        await self._append([_again(record) for record in chosen])

    async def _read(self) -> dict[str, list[Record]]:
        while True:
            try:
                return await read_log(self._log, _COPYABLE)
            except LogError:  # it is away just now
                await asyncio.sleep(_AGAIN)

    def _event(self, key: str, fate: Fate | None) -> Placed:
        self._numbers[key] += 1
        if fate is None:
            fate = "plain" if self._plain else self._drawn(key)
        return Placed(key=key, seq=self._numbers[key], fate=fate)

    def _drawn(self, key: str) -> Fate:
        if key in REFUSING and self._draw.random() < 0.1:
            return "refused"
        fates: list[Fate] = ["plain", "shaky", "long", "odd"]
        return self._draw.choices(fates, [85, 8, 4, 3])[0]

    async def _until_acknowledged(self, event_id: str, event: Placed) -> None:
        while True:
            try:
                await self._bus.publish(event, event_id=event_id)
                break
            except (LogError, WireError):
                await asyncio.sleep(_AGAIN)
        self.published[event_id] = Seen(event_id, None, "Placed", event.key, event.seq, event.fate, 0, "")

    async def _append(self, records: list[NewRecord]) -> int:
        """Returns how many are known to be there."""
        try:
            await self._producer.append(records)
        except LogError:
            return 0
        return len(records)


def _again(record: Record) -> NewRecord:
    return NewRecord(record.topic, record.key, record.value, record.headers, record.timestamp)

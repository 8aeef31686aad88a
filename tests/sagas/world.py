"""Runs a plan: real instances over one log in memory and stores in files, on a loop whose time jumps."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from choreo import Event, Settings
from choreo.choreography import Choreography, dead_letter_topic, retry_topic
from choreo.dlq import Reason, Selection, dead_letters
from choreo.events import Metadata
from choreo.log.memory import MemoryLog
from choreo.log.port import NewRecord, Record, Topic, TopicPartition
from choreo.log.tables import Tables
from choreo.runtime.clock import rfc3339
from choreo.runtime.instance import Instance
from choreo.wire import Codec, open_registry
from tests.integration.runtime_world import crash
from tests.sagas.choreography import SERVICES, Placed
from tests.sagas.link import Link, LinkedLog, LinkedStore, Network, Script
from tests.sagas.loop import LoopClock, StillLoop
from tests.sagas.plan import Copy, Crash, Freeze, Hold, Let, Operation, Plan, Redrive, Start, Stop, Thaw, Wait

_PARTITIONS = {"orders": 2, "payments": 3, "stock": 1, "shipments": 2, "points": 3, "outcomes": 1}
"""Others have one. They differ, so that two instances share the events of a saga."""
_MOST_INSTANCES = 2
_ROUNDS = 80
"""How often the end is looked at, before it counts as never reached."""
_REASON = Reason(kind="redriven", by="test", why="it works again")
BY_NAME = {service.name: service for service in SERVICES}


class NeverAtRestError(Exception):
    """A saga stays open for ever."""


class Ground:
    """What all worlds have in common: a folder, the schemas, and stores that are empty yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codec = Codec(open_registry(str(folder / "schemas")))
        self.settings = Settings(log="memory://", registry=str(folder / "schemas"), stop_grace=5.0)

    async def prepare(self) -> None:
        classes = {event for service in SERVICES for event in service.event_classes}
        await self.codec.prepare(writes=classes, reads=classes)
        for service in SERVICES:
            network = Network(MemoryLog(), lambda: 0)
            link = Link(service.name, network, Script({}), Random(0), lambda _: None)
            store = LinkedStore(self.folder / f"{service.name}.db", link, [])
            await store.open(service.name, service.tables)
            await store.close()


class World:
    """Five services at work."""

    def __init__(self, ground: Ground, folder: Path, plan: Plan, loop: StillLoop) -> None:
        self.plan = plan
        self.names = [f"o{number}" for number in range(len(plan.sagas))]
        self.clock = LoopClock(loop)
        self.log = MemoryLog(now=self.clock.now_ms)
        self.codec = ground.codec
        self._loop = loop
        self._folder = folder
        self._settings = ground.settings
        self._network = Network(self.log, self.clock.now_ms)
        answers = {
            (handler, name): answer
            for name, saga in zip(self.names, plan.sagas, strict=True)
            for handler, answer in saga.answers.items()
        }
        self._script = Script(answers)
        self._chance = Random(plan.chance)
        self._instances: dict[str, list[tuple[Link, Instance]]] = {name: [] for name in BY_NAME}
        self._peers: dict[str, list[LinkedStore]] = {name: [] for name in BY_NAME}
        self._fuses: dict[str, dict[str, int]] = {name: {} for name in BY_NAME}
        self._buried: set[asyncio.Task[None]] = set()
        for name in BY_NAME:
            shutil.copy(ground.folder / f"{name}.db", self._path(name))
        self._views = {name: sqlite3.connect(self._path(name)) for name in BY_NAME}

    @property
    def arrived(self) -> dict[str, int]:
        return self._network.arrived

    def _path(self, service: str) -> Path:
        return self._folder / f"{service}.db"

    # --- instances ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        topics = Choreography.of(SERVICES).topics
        await self.log.create_topics([Topic(name=name, partitions=_PARTITIONS.get(name, 1)) for name in topics])
        for service, topic in self.plan.held:
            self._hide(service, topic, {})
        for name in (*BY_NAME, *sorted(self.plan.twins)):
            await self.start(name)
        await self.settle()
        for planned in self.plan.crashes:
            self._fuses[planned.service][planned.point] = planned.nth

    async def start(self, name: str) -> None:
        link = Link(name, self._network, self._script, self._chance, self._died)
        link.fuses = self._fuses[name]
        instance = Instance(
            BY_NAME[name], log=LinkedLog(link), codec=self.codec, settings=self._settings, clock=self.clock,
            open_store=lambda _: LinkedStore(self._path(name), link, self._peers[name]),
        )  # fmt: skip
        self._instances[name].append((link, instance))
        Link.starting = link
        await instance.start()

    async def stop(self, name: str) -> None:
        if not self._instances[name]:
            return
        link, instance = self._instances[name][-1]
        link.thaw()
        link.stopping = self._loop.create_task(instance.stop())
        await asyncio.wait({link.stopping})
        if not link.dead:
            self._instances[name].remove((link, instance))
            link.stopping.result()

    def _died(self, link: Link) -> None:
        self._buried.add(self._loop.create_task(self._bury(link)))

    async def _bury(self, link: Link) -> None:
        ((at, instance),) = [(at, each) for at, (own, each) in enumerate(self._instances[link.service]) if own is link]
        del self._instances[link.service][at]
        if link.stopping is not None:
            link.stopping.cancel()
            await asyncio.wait({link.stopping})
        await crash(instance)

    async def close(self) -> None:
        for name in BY_NAME:
            while self._instances[name]:
                await self.stop(name)
        for view in self._views.values():
            view.close()

    async def settle(self) -> None:
        await self._loop.settle()
        self._check()

    def _check(self) -> None:
        for task in self._buried:
            if task.done():
                task.result()
        for each in self._instances.values():
            for _, instance in each:
                if instance.failed is not None:
                    raise instance.failed

    # --- operations ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The whole plan, and then everything that keeps sagas from their ends goes."""
        for number in range(max(len(self.plan.operations), *(saga.after for saga in self.plan.sagas)) + 1):
            for name, saga in zip(self.names, self.plan.sagas, strict=True):
                if saga.after == number:
                    await self._publish(Placed(order=name, stamps=saga.stamps), name)
            await self.settle()
            if number < len(self.plan.operations):
                await self._do(self.plan.operations[number])
                await self.settle()
        await self._end()
        for record in await self.events():
            await self._write(record, None)
        await self._end()

    async def _do(self, operation: Operation) -> None:
        match operation:
            case Let(service, topic, count):
                self._show(service, topic, count)
            case Hold(service, topic):
                self._hide(service, topic, await self._ends([topic]))
            case Copy(which, elsewhere):
                await self._copy(which, elsewhere=elsewhere)
            case Wait(seconds):
                await self._loop.advance(seconds)
            case Crash(service, point, nth):
                self._fuses[service][point] = nth
            case Redrive(service):
                await self._redrive(service)
            case _:
                await self._staff(operation)

    async def _staff(self, operation: Any) -> None:
        name = operation.service
        match operation:
            case Start() if len(self._instances[name]) < _MOST_INSTANCES:
                await self.start(name)
            case Stop():
                await self.stop(name)
            case Freeze():
                await self._freeze(name)
            case Thaw():
                self._thaw(name)

    async def _copy(self, which: int, *, elsewhere: bool) -> None:
        if events := await self.events():
            record = events[which % len(events)]
            other = (record.partition + 1) % _PARTITIONS[record.topic]
            await self._write(record, other if elsewhere else None)

    async def _freeze(self, service: str) -> None:
        for link, instance in self._instances[service][:1]:
            link.freeze()
            await self.log.write(Tables.leave, *instance._consumer.membership)

    def _thaw(self, service: str) -> None:
        for link, _ in self._instances[service]:
            link.thaw()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(_PARTITIONS.get(topic, 1))]

    def _hide(self, service: str, topic: str, ends: dict[TopicPartition, int]) -> None:
        for at in self._partitions(topic):
            self._network.visible.setdefault((service, at), ends.get(at, 0))

    def _show(self, service: str, topic: str, count: int | None) -> None:
        visible = self._network.visible
        for at in self._partitions(topic):
            if (service, at) in visible:
                if count is None:
                    del visible[service, at]
                else:
                    visible[service, at] += count
        self.log.wake()

    async def _publish(self, event: Event, saga: str) -> None:
        now_ms = self.clock.now_ms()
        metadata = Metadata(f"placed-{saga}", event.contract.type_name, "test", rfc3339(now_ms), saga)
        record = self.codec.encode(event, metadata, timestamp=now_ms)
        self._network.note([record])
        await self.log.producer().append([record])

    async def _write(self, record: Record, partition: int | None) -> None:
        copy = NewRecord(record.topic, record.key, record.value, record.headers, record.timestamp, partition)
        await self.log.producer().append([copy])

    async def _redrive(self, service: str) -> int:
        """Give back what is open; says how many there were."""
        if not any((await self._ends([dead_letter_topic(service)])).values()):
            return 0
        async with dead_letters(self.log, service=service, values_of=Selection()) as letters:
            reports = [report async for report in letters.resolve(Selection(state="open"), _REASON)]
        assert not reports[-1].refused, reports[-1]
        return reports[-1].resolved

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        self._script.heal()
        for name in BY_NAME:
            self._thaw(name)
        for service, at in list(self._network.visible):
            self._show(service, at.topic, None)
        pause, left = 0.2, []
        for _ in range(_ROUNDS):
            await self.settle()
            for name in BY_NAME:
                if not self._instances[name]:
                    await self.start(name)
            redriven = [await self._redrive(name) for name in BY_NAME]
            await self.settle()
            if not any(redriven) and all(self._instances.values()) and not (left := await self.left()):
                return
            await self._loop.advance(pause)
            self._check()
            pause = min(5.0, pause * 1.5)
        raise NeverAtRestError(", ".join(left) or "something is redriven again and again")

    async def left(self) -> list[str]:
        """What is still to be done."""
        found = []
        for name, service in BY_NAME.items():
            ends = await self._ends([*service.topics, retry_topic(name)])
            progress = {
                (topic, number): at
                for topic, number, at in self.rows(name, "SELECT topic, partition, watermark FROM choreo_progress")
            }
            found += [
                f"{name} has not handled {at.topic}/{at.partition} up to {end}"
                for at, end in ends.items()
                if end > 0 and progress.get(at, 0) < end
            ]
            for table in ("outbox", "timers", "parked", "behind"):
                if rows := self.rows(name, f"SELECT * FROM choreo_{table}"):
                    found.append(f"{name} has {len(rows)} rows in choreo_{table}")
        return found

    # --- looking ------------------------------------------------------------------------------------------------------

    def rows(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        return self._views[service].execute(sql).fetchall()

    async def _ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        return await self.log.end_offsets([at for topic in topics for at in self._partitions(topic)])

    async def events(self) -> list[Record]:
        """All records of the sagas' events, copies too."""
        topics = {topic for service in SERVICES for event in service.event_classes for topic in event.contract.topics}
        start = {at: 0 for topic in sorted(topics) for at in self._partitions(topic)}
        fetched = await self.log.read(Tables.fetch, start, 1_000_000, "earliest")
        return [record for at in sorted(fetched) for record in fetched[at][1]]

"""The stores of a world: in memory, and lost to an instance that has died."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from choreo.errors import StoreUnavailableError
from choreo.store.port import Effects
from choreo.store.sqlite.memory import MemoryDatabase, MemoryStore
from choreo.testing.link import Link

T = TypeVar("T")

_images: dict[tuple[str, str], bytes] = {}
"""What a new store holds, by service and the SQL of its tables: making it anew takes ten times as long."""


class LinkedStore(MemoryStore):
    """A store in memory as one instance sees it, until that dies."""

    def __init__(self, database: MemoryDatabase, service: str, link: Link) -> None:
        super().__init__(database, f"of {service} in memory", link.network.clock.now_ms)
        self._link = link

    async def commit(self, effects: Effects) -> int | None:
        """See `Store.commit`."""
        does_something = bool(effects.inbox or effects.outbox or effects.notes or effects.timers or effects.unset)
        if does_something:
            await self._link.reach("before commit")
        row_id = await super().commit(effects)
        if does_something:
            await self._link.reach("after commit")
        return row_id

    def _migrate(self, service: str, tables: str) -> None:
        is_new = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        image = _images.get((service, tables))
        if is_new and image is not None:
            self._writer.deserialize(image)
            return
        super()._migrate(service, tables)
        if is_new:
            _images[service, tables] = self._writer.serialize()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._link.dead and self._is_open:
            raise StoreUnavailableError("this instance has died")
        return await super()._run(work)

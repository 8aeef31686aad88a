"""What happens to records on their way, for all services of a world: plans, and a journal of what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from choreo.events import Event
from choreo.log.port import NewRecord, Record
from choreo.runtime.clock import Clock
from choreo.testing.journal import Journal

if TYPE_CHECKING:
    from choreo.testing.link import LinkedConsumer


@dataclass(frozen=True)
class Hold:
    """Records that come later.

    Attributes:
        service: to which; empty: to all.
        seconds: how long after they were produced; 0: until they are released.
    """

    event: type[Event]
    service: str
    seconds: float

    def concerns(self, record: Record, service: str) -> bool:
        """Whether it holds this record up on its way to this service."""
        return self.service in {"", service} and is_of(record, self.event)


class Network:
    """Between all instances and the log.

    Attributes:
        holds: what is held up.
        doubled: events that are sent twice, with how many more of them.
        consumers: those that are open.
    """

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self.clock, self.journal = clock, journal
        self.holds: list[Hold] = []
        self.doubled: dict[type[Event], float] = {}
        self.consumers: list[LinkedConsumer] = []

    def outgoing(self, records: Sequence[NewRecord]) -> list[NewRecord]:
        """What arrives at the log of these records: some of them twice, as when a producer has missed the answer."""
        again = [record for record in records if self._is_doubled(record)] if self.doubled else []
        return [*records, *again]

    def _is_doubled(self, record: NewRecord) -> bool:
        event = next((event for event, left in self.doubled.items() if left > 0 and is_of(record, event)), None)
        if event is not None:
            self.doubled[event] -= 1
        return event is not None

    def held_until(self, record: Record, service: str) -> float | None:
        """In how many seconds this record may arrive; 0: when it is released; None: now."""
        longest: float | None = None
        for hold in self.holds:
            if not hold.concerns(record, service):
                continue
            if not hold.seconds:
                return 0
            left = hold.seconds + (record.timestamp - self.clock.now_ms()) / 1000
            if left > 0:
                longest = max(left, longest or 0)
        return longest

    async def release(self) -> None:
        """Plans have changed: look again at everything that is held up."""
        for consumer in list(self.consumers):
            await consumer.let_go()


def is_of(record: NewRecord | Record, event: type[Event]) -> bool:
    """Whether a record is an event of this class, on its first way: not when it comes back for another attempt."""
    name = event.contract.type_name.encode()
    return record.topic in event.contract.topics and dict(record.headers).get("ce_type") == name

"""Events and helpers of the tests of sagas: compensations, joins, deadlines."""

from __future__ import annotations

from choreo import Event, Failure, connect
from tests.integration.runtime_world import World


class Ordered(Event, topic="orders", key="id"):
    """The start of most sagas here."""

    id: str
    n: int = 0


class Charged(Event, topic="charges", key="id"):
    """What a step emits that is to be undone."""

    id: str
    n: int = 0


class Reserved(Event, topic="stock", key="id"):
    """The other half of a join."""

    id: str
    n: int = 0


class OutOfStock(Failure, topic="stock", key="id"):
    """A failure of the other branch."""

    id: str


class Rejected(Failure, topic="parcels", key="id"):
    """Another failure."""

    id: str


class Refunded(Event, topic="refunds", key="id"):
    """What a compensation emits."""

    id: str
    n: int = 0


class Sent(Event, topic="parcels", key="id"):
    """What a join emits."""

    id: str
    n: int = 0


TABLES = "CREATE TABLE IF NOT EXISTS effects (id TEXT, n INTEGER)"


async def tell(world: World, saga: str, *events: Event, event_id: str | None = None) -> None:
    """Publish events of one saga, one after the other."""
    async with connect(world.settings(), source="test", log=world.log) as bus:
        for event in events:
            await bus.publish(event, correlation_id=saga, event_id=event_id)

"""Every order in which events can reach a set of services: handlers run against real SQLite tables, without a log.

A node of the search is what all stores hold and what is still on its way. Leaves of the choreography are left out of
the search, since nobody depends on them, and get everything at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from choreo import Event, Service


class Delivery(NamedTuple):
    """An event on its way to a service."""

    service: str
    event: Event


class World(NamedTuple):
    """A node: each service's database image, what is on its way, and all events so far, in order."""

    stores: tuple[bytes, ...]
    pending: tuple[Delivery, ...]
    events: tuple[Event, ...]


class Database:
    """`ctx.db` over one SQLite connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, parameters).rowcount

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self._connection.execute(sql, parameters).fetchone()

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()


class Context:
    """What the shop's handlers use of `ctx`."""

    def __init__(self, connection: sqlite3.Connection, event: Event) -> None:
        self.db = Database(connection)
        self.event_id = self.idempotency_key = f"{event.contract.type_name}-of-{event.order_id}"


def connect(image: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(image)
    return connection


def empty_store(service: Service) -> bytes:
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        connection.executescript(service.tables)
        image = connection.serialize()
    connection.close()
    return image


def handle(service: Service, event: Event, connection: sqlite3.Connection) -> list[Event]:
    """What the service's handlers of this event emit."""
    emitted: list[Event] = []
    for handler in service.handlers.values():
        if type(event) in handler.consumes:
            returned = _run(handler.function(event, Context(connection, event)))
            emitted += [] if returned is None else [returned]
    return emitted


def _run(coroutine: Any) -> Any:
    """The result of a coroutine that never really waits, at a fraction of `asyncio.run`'s cost."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"{coroutine} waited for something outside its store")


def endings(services: Sequence[Service], first: Event, *, in_topic_order: bool) -> Iterator[World]:
    """Every world in which nothing is on its way any more, however the deliveries were interleaved.

    With `in_topic_order` a service gets one topic's events in the order they were emitted, as choreo promises for
    one key; without, in any order at all, as after a dead letter that is redriven late.
    """
    start = _sent(World(tuple(map(empty_store, services)), (), ()), services, [first])
    todo, known = [start], set()
    while todo:
        world = todo.pop()
        if not world.pending:
            yield world
        for place, delivery in enumerate(world.pending):
            overtakes = any(_same_queue(delivery, earlier) for earlier in world.pending[:place])
            if overtakes and in_topic_order:
                continue
            following = _delivered(world, services, place)
            signature = _signature(following)
            if signature not in known:
                known.add(signature)
                todo.append(following)


def _same_queue(one: Delivery, other: Delivery) -> bool:
    return one.service == other.service and one.event.contract.topics == other.event.contract.topics


def _delivered(world: World, services: Sequence[Service], place: int) -> World:
    delivery = world.pending[place]
    number = next(i for i, service in enumerate(services) if service.name == delivery.service)
    connection = connect(world.stores[number])
    emitted = handle(services[number], delivery.event, connection)
    stores = (*world.stores[:number], connection.serialize(), *world.stores[number + 1 :])
    connection.close()
    rest = world.pending[:place] + world.pending[place + 1 :]
    return _sent(World(stores, rest, world.events), services, emitted)


def _sent(world: World, services: Sequence[Service], emitted: Sequence[Event]) -> World:
    deliveries = [
        Delivery(service.name, event)
        for event in emitted
        for service in services
        if any(type(event) in handler.consumes for handler in service.handlers.values())
    ]
    return World(world.stores, (*world.pending, *deliveries), (*world.events, *emitted))


def _signature(world: World) -> Any:
    """What makes two worlds the same for all that can still happen, and for what is checked at the end."""
    rows = []
    for image in world.stores:
        connection = connect(image)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows.append(tuple(tuple(sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)) for table in tables))
        connection.close()
    return tuple(rows), world.pending, frozenset(event.contract.type_name for event in world.events)

"""Every order in which events can reach a set of services: handlers run against real SQLite tables, without a log.

A node of the search is what all stores hold, what is remembered of the saga, and what is still on its way. Compensations,
joins and deadlines are called as their declarations say; a deadline may strike at any moment at which it is set.
Leaves of the choreography are left out of the search, since nobody depends on them, and get everything at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from choreo import Event, Service
from choreo.handler import Compensation, Deadline, Handler, Join
from choreo.store.sql import by_number

Memory = dict[tuple[str, str, str], tuple[Any, ...]]
"""What a service remembers: by order, handler and kind ("done" and "failed" of a step, "arrived" and "ended" of a join,
"stopped" of a deadline)."""


class Delivery(NamedTuple):
    """An event on its way to a service, or a deadline that is set."""

    service: str
    event: Event
    deadline: str = ""


class World(NamedTuple):
    """A node: each service's database image and memory, what is on its way, and all events so far, in order."""

    stores: tuple[bytes, ...]
    memories: tuple[Memory, ...]
    pending: tuple[Delivery, ...]
    events: tuple[Event, ...]


class Database:
    """`ctx.db` over one SQLite connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, by_number(parameters)).rowcount

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self._connection.execute(sql, by_number(parameters)).fetchone()


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


def handle(
    service: Service, memory: Memory, delivery: Delivery, connection: sqlite3.Connection
) -> tuple[list[Event], list[Delivery]]:
    """What the service's handlers emit, and the deadlines that are set; changes tables and memory."""
    emitted: list[Event] = []
    alarms: list[Delivery] = []
    undone = {each.rule.step for each in service.handlers.values() if isinstance(each.rule, Compensation)}
    for handler in service.handlers.values():
        event = delivery.event
        if delivery.deadline not in {"", handler.name} or type(event) not in handler.consumes:
            continue
        if isinstance(handler.rule, Deadline) and not delivery.deadline:
            if isinstance(event, handler.rule.unless):
                memory[event.order_id, handler.name, "stopped"] = ()
            elif (event.order_id, handler.name, "stopped") not in memory:
                alarms.append(Delivery(service.name, event, handler.name))
            continue
        step = event.order_id, handler.name
        if handler.name in undone and (*step, "failed") in memory:
            continue
        for arguments in _calls(handler, event, memory):
            returned = _run(handler.function(*arguments, Context(connection, event)))
            emitted += [] if returned is None else [returned]
            if handler.name in undone and returned is not None:
                memory[*step, "done"] = (*memory.get((*step, "done"), ()), returned)
    return emitted, alarms


def _calls(handler: Handler, event: Event, memory: Memory) -> list[tuple[Event, ...]]:
    """With what a handler is called for this event."""
    rule = handler.rule
    if isinstance(rule, Compensation):
        step = event.order_id, rule.step
        if (*step, "failed") in memory:
            return []
        memory[*step, "failed"] = (event,)
        return [(done, event) for done in reversed(memory.get((*step, "done"), ())) if isinstance(done, rule.undoes)]
    if isinstance(rule, Join):
        name = event.order_id, handler.name
        arrived = {type(each): each for each in memory.get((*name, "arrived"), ())}
        if (*name, "ended") in memory or type(event) in arrived:
            return []
        arrived[type(event)] = event
        if type(event) in rule.unless or len(arrived) == len(rule.events):
            memory[*name, "ended"] = ()
        memory[*name, "arrived"] = tuple(arrived.values())
        is_complete = type(event) not in rule.unless and len(arrived) == len(rule.events)
        return [tuple(arrived[each] for each in rule.events)] if is_complete else []
    return [(event,)]


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
    nothing = World(tuple(map(empty_store, services)), tuple({} for _ in services), (), ())
    start = _sent(nothing, services, [first])
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
    if one.deadline or other.deadline:
        return False
    return one.service == other.service and one.event.contract.topics == other.event.contract.topics


def _delivered(world: World, services: Sequence[Service], place: int) -> World:
    delivery = world.pending[place]
    number = next(i for i, service in enumerate(services) if service.name == delivery.service)
    connection, memory = connect(world.stores[number]), dict(world.memories[number])
    emitted, alarms = handle(services[number], memory, delivery, connection)
    stores = (*world.stores[:number], connection.serialize(), *world.stores[number + 1 :])
    memories = (*world.memories[:number], memory, *world.memories[number + 1 :])
    connection.close()
    rest = world.pending[:place] + world.pending[place + 1 :]
    left = tuple(each for each in (*rest, *alarms) if each.service != delivery.service or not _is_off(each, memory))
    return _sent(World(stores, memories, left, world.events), services, emitted)


def _is_off(each: Delivery, memory: Memory) -> bool:
    return bool(each.deadline) and (each.event.order_id, each.deadline, "stopped") in memory


def _sent(world: World, services: Sequence[Service], emitted: Sequence[Event]) -> World:
    deliveries = [
        Delivery(service.name, event)
        for event in emitted
        for service in services
        if any(type(event) in handler.consumes for handler in service.handlers.values())
    ]
    return world._replace(pending=(*world.pending, *deliveries), events=(*world.events, *emitted))


def _signature(world: World) -> Any:
    """What makes two worlds the same for all that can still happen, and for what is checked at the end."""
    rows = []
    for image in world.stores:
        connection = connect(image)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows.append(tuple(tuple(sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)) for table in tables))
        connection.close()
    known = tuple(
        tuple(sorted((key, tuple(type(each).__name__ for each in value)) for key, value in memory.items()))
        for memory in world.memories
    )
    return tuple(rows), known, world.pending, frozenset(event.contract.type_name for event in world.events)

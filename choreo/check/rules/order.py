"""What may arrive in another order than it was produced in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

from choreo.check.finding import Finding, Rule
from choreo.check.model import Model, in_order
from choreo.check.search import Goal
from choreo.check.sql import Assignment
from choreo.graph import EventNode, HandlerNode, Joining


def overtaking_failures(model: Model) -> Iterator[Finding]:
    """Failures that plain handlers react to, and that may come before what another handler of the service has yet to do."""
    for undo in model.graph.handlers:
        for step in model.graph.handlers:
            if undo.kind == step.kind == "on" and undo.service == step.service and undo is not step:
                finding = next(_overtaken(model, undo, step), None)
                if finding is not None:
                    yield finding


def _overtaken(model: Model, undo: HandlerNode, step: HandlerNode) -> Iterator[Finding]:
    goes_on = [name for name in step.emits if not (model.graph.event[name].failure or model.graph.event[name].ends)]
    for name, failure in product(step.consumes, map(model.graph.event.__getitem__, undo.consumes)):
        is_failure = failure.failure or failure.ends == "failed"
        if not is_failure or not goes_on or name in undo.consumes or _is_safe(model, step, name, failure):
            continue
        paths = model.example(Goal(name, frozenset({failure.name})), Goal(failure.name))
        if paths is not None:
            yield Finding(
                code="C11",
                severity="info" if step.may_emit_nothing else "warning",
                handler=undo.id,
                about=(step.id,),
                message=f"{failure.name} may reach service {undo.service} before {name}: then {undo.id} finds nothing, and "
                f"{step.id} acts afterwards" + (", unless it remembers" if step.may_emit_nothing else ""),
                remedy=f"write {undo.name} as @{undo.service}.compensates({step.name}, on=({failure.name},)): then the step does "
                "not start any more",
                paths=paths,
            )


def _is_safe(model: Model, step: HandlerNode, event: str, failure: EventNode) -> bool:
    """Whether the failure cannot come before the step, or keeps it from being done afterwards."""
    told = model.follows(failure.name)
    is_kept = any(told & set(compensation.consumes) for compensation in model.undoing.get(step.id, ()))
    return is_kept or in_order(model.graph.event[event], failure) or not model.comes_without(failure.name, step)


def unordered_writes(model: Model) -> Iterator[Finding]:
    """Two handlers of a service that overwrite one column, on events that have no order."""
    for one, other in combinations(model.graph.handlers, 2):
        if one.service != other.service or "compensation" in {one.kind, other.kind}:
            continue
        both = _overwritten_by_both(model.source(one).assigns, model.source(other).assigns)
        pair = next(iter(_unordered(model, one, other)), None) if both else None
        if pair is not None:
            table, column = both[0]
            yield Finding(
                code="C12",
                severity="warning",
                handler=other.id,
                about=(one.id, table, column),
                message=f"{one.id} (on {pair[0]}) and {other.id} (on {pair[1]}) both overwrite {table}.{column}, and their events have no "
                "order: the last to come wins",
                remedy=f"say in WHERE which {column} may be replaced, compute the new value from the old one, or let both events have one topic and key",
            )


def _overwritten_by_both(one: tuple[Assignment, ...], other: tuple[Assignment, ...]) -> list[tuple[str, str]]:
    """The columns that both set; the same constant from both is the same in either order."""
    return [
        (first.table, first.column)
        for first in one
        for second in other
        if first[:2] == second[:2] and (first.value != second.value or any(char in first.value for char in "?%$:.("))
    ]


def _unordered(model: Model, one: HandlerNode, other: HandlerNode) -> Iterator[tuple[str, str]]:
    """Pairs of events that may come in one saga, in either order for this service."""
    for first in one.consumes:
        for second in other.consumes:
            events = model.graph.event[first], model.graph.event[second]
            is_free = model.comes_without(second, one) and model.comes_without(first, other)
            if first != second and is_free and not in_order(*events) and model.together.meet(first, second):
                yield first, second


def mixed_keys(model: Model) -> Iterator[Finding]:
    """Topics whose events have different keys, and joins of events with different keys."""
    for topic in model.graph.topics:
        events = [event for event in model.graph.events if topic in event.topics]
        for one, other in combinations(events, 2):
            readers = [name for name in other.consumed_by if _reads(model, model.graph.handler[name].service, one.name)]
            if one.key != other.key and readers:
                yield Finding(
                    code="C15",
                    severity="warning",
                    handler=readers[0],
                    about=(topic, one.name, other.name),
                    message=f"in topic {topic}, {one.name} has the key {one.key} and {other.name} the key {other.key}: they share a topic, "
                    "and have no order",
                    remedy="give both one key, or topics of their own",
                )
    for handler in model.graph.handlers:
        if isinstance(handler.rule, Joining) and handler.rule.by is None and handler.service in model.on_one_machine:
            keys = {model.graph.event[name].key for name in handler.consumes}
            if len(keys) > 1:
                yield Finding(
                    code="C15",
                    severity="warning",
                    handler=handler.id,
                    about=tuple(handler.consumes),
                    message=f"{handler.id} joins events with the keys {' and '.join(sorted(keys))}: they may be read on different machines, "
                    "which share no SQLite store",
                    remedy="give them one key, say by which field they are joined (by=...), or use store='postgresql://...'",
                )


def _reads(model: Model, service: str, event: str) -> bool:
    return any(model.graph.handler[name].service == service for name in model.graph.event[event].consumed_by)


RULES = (
    Rule(
        code="C11",
        title="Overtaking",
        means="A plain handler reacts to a failure, another one of the same service to an event that sets it to work, and the failure can "
        "come without that work. The two events have different topics or keys, so the failure may be read first. A step that may emit nothing may have been written with that "
        "in mind: then it is only a hint. Compensations and joins (unless=) "
        "are safe: choreo remembers the failure and does not start what comes late.",
        why="The undo comes first and finds nothing; then the step takes effect, and nothing undoes it. It shows under load only.",
        mend="Declare the undo as a compensation. What stays by hand must remember failures that came early.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class StockReserved(Event, topic="stock", key="order_id"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id"):
    order_id: str

stock, payments = Service("stock"), Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentDeclined | None: ...

@stock.on(OrderPlaced)
async def reserve(order: OrderPlaced) -> StockReserved: ...

@stock.on(PaymentDeclined)  # by another topic than OrderPlaced
async def release(declined: PaymentDeclined) -> None: ...
""",
        find=overtaking_failures,
    ),
    Rule(
        code="C12",
        title="Unordered pair",
        means="Two handlers of a service overwrite the same column (UPDATE ... SET status = ?, with nothing about status in WHERE), and their "
        "events may come in one saga in either order, since they have no topic and key in common. Read from the SQL in the handlers' own source.",
        why="What the row says in the end depends on which topic was quicker.",
        mend="Name in WHERE the state that may be replaced, count up instead of overwriting, or publish both events to one topic with one key.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class Packed(Event, topic="stock", key="order_id"):
    order_id: str

class Paid(Event, topic="payments", key="order_id"):
    order_id: str

stock, payments, desk = Service("stock"), Service("payments"), Service("desk")

@stock.on(OrderPlaced)
async def pack(order: OrderPlaced) -> Packed: ...

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> Paid: ...

@desk.on(Packed)
async def packed(event: Packed, ctx: Context) -> None:
    await ctx.db.execute("UPDATE orders SET status = 'packed' WHERE order_id = ?", (event.order_id,))

@desk.on(Paid)
async def paid(event: Paid, ctx: Context) -> None:
    await ctx.db.execute("UPDATE orders SET status = 'paid' WHERE order_id = ?", (event.order_id,))
""",
        find=unordered_writes,
    ),
    Rule(
        code="C15",
        title="Keys that do not fit",
        means="Two events of one topic have different key fields, and one service reads both. Or: a join by correlation id takes events with "
        "different keys, while the service's store is a SQLite file. (Two classes of one event with different keys are refused at once.)",
        why="Records are ordered per key. Events with different keys are in different partitions, whatever their topic, and other instances "
        "of the service may read them.",
        mend="Key all events of a saga by the same field. Where that cannot be, name the field that joins them, or let all instances share "
        "a PostgreSQL store.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    customer_id: str

class CustomerBlocked(Event, topic="orders", key="customer_id"):  # by customer, among the orders
    customer_id: str

orders = Service("orders")

@orders.on(OrderPlaced)
async def open_order(order: OrderPlaced) -> None: ...

@orders.on(CustomerBlocked)
async def block(blocked: CustomerBlocked) -> None: ...
""",
        find=mixed_keys,
    ),
)

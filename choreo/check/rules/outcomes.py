"""Sagas that wait for ever, and sagas that end twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from choreo.check.finding import Finding, Path, Rule
from choreo.check.model import Model
from choreo.check.search import Goal
from choreo.check.ways import Way
from choreo.graph import EventNode, HandlerNode, Joining


def endless_waits(model: Model) -> Iterator[Finding]:
    """Joins that may wait for an event which stays away, while nothing ends the wait."""
    for handler in model.graph.handlers:
        if not isinstance(handler.rule, Joining) or handler.stopped_by or _has_deadline(model, handler):
            continue
        if not any(model.loosely.fires(way) for way in model.ways if way.handler is handler):
            continue  # it waits in every saga: C03
        for come in handler.consumes:
            sure = _sure(model, come)
            missing = next((name for name in handler.consumes if name not in sure), None)
            if missing is not None and len(sure & set(handler.consumes)) < handler.rule.need:
                yield Finding(
                    code="C13",
                    severity="warning",
                    handler=handler.id,
                    about=(come, missing),
                    message=f"{handler.id} may wait for ever: {come} has come, and {missing} may stay away",
                    remedy=f"name what ends the wait, @{handler.service}.join(..., unless=(SomeFailure,)), or set a deadline",
                )
                break


def _has_deadline(model: Model, join: HandlerNode) -> bool:
    """Whether a deadline of the saga runs when the join waits, other than one that it waits for."""
    for handler in model.graph.handlers:
        if handler.kind == "deadline" and not any(model.follows(name) & set(join.consumes) for name in handler.emits):
            timer = handler.consumes[0]
            if any(name == timer or model.together.causes(timer, name) for name in join.consumes):
                return True
    return False


def _sure(model: Model, event: str) -> set[str]:
    """The events that come in every saga to which this one has come as shortly as can be, as far as declarations tell."""
    path = (model.walks.example(Goal(event)) or ((event,),))[0]
    found = set(path[::2])
    for name in path[1::2]:  # what was emitted beside
        found |= {emitted for emitted in model.graph.handler[name].several if not model.graph.event[emitted].failure}
    before = 0
    while before != len(found):
        before = len(found)
        found.update(
            event for way in model.ways if _is_certain(way) and found.issuperset(way.causes) for event in way.emits
        )
    return found


def _is_certain(way: Way) -> bool:
    """Whether a handler that is called always emits its event."""
    handler = way.handler
    is_plain = handler.kind in {"on", "join", "deadline"} and not handler.stopped_by
    return is_plain and len(handler.emits) == 1 and (handler.fan_out or not handler.may_emit_nothing)


def disputed_outcomes(model: Model) -> Iterator[Finding]:
    """Ends of both kinds that can come in one saga, since nobody decides between them."""
    good = [event for event in model.ends if event.ends == "completed"]
    for end in good:
        for other in model.ends:
            if other.ends == "failed" and not model.together.causes(end.name, other.name):  # that would be C09
                yield from _both(model, end, other)
        yield from _called_back(model, end)
    yield from _late_deadlines(model, good)


def _both(model: Model, good: EventNode, bad: EventNode) -> Iterator[Finding]:
    for one, other in product(good.emitted_by, bad.emitted_by):
        paths = model.example(
            Goal(good.name, frozenset({bad.name}), one), Goal(bad.name, frozenset({good.name}), other)
        )
        if paths is None or _is_decided(model, paths, (good.name, bad.name)):
            continue
        first, second = model.graph.handler[one], model.graph.handler[other]
        if first.service == second.service:
            blind, end, before = (second, bad, good) if _holds_back(first, bad.name) else (first, good, bad)
            message = f"{blind.id} emits {end.name} also when {before.name} has ended the saga already"
            remedy = f"let {blind.name} look whether the saga has ended, and emit nothing then (-> {end.name} | None)"
        else:
            blind = second
            message = f"{one} may end a saga with {good.name} and {other} with {bad.name}: two services decide"
            remedy = f"let one service hear of both causes, and emit {good.name} or {bad.name}, whichever comes first"
        yield Finding(
            code="C14",
            severity="warning",
            handler=blind.id,
            about=(good.name, bad.name, one, other),
            message=message,
            remedy=remedy,
            paths=paths,
        )


def _is_decided(model: Model, paths: tuple[Path, Path], ends: tuple[str, str]) -> bool:
    """Whether one service is on both ways, after they part, with handlers that may hold back: it can decide."""
    parting = (at for at, (one, other) in enumerate(zip(*paths, strict=False)) if one != other)
    common = next(parting, min(map(len, paths)))
    deciding = [
        {
            model.graph.handler[name].service
            for at, name in enumerate(path)
            if at >= common and at % 2 and _holds_back(model.graph.handler[name], end)
        }
        for path, end in zip(paths, reversed(ends), strict=True)
    ]
    return bool(deciding[0] & deciding[1])


def _holds_back(handler: HandlerNode, other_end: str) -> bool:
    """Whether a handler need not emit its event when the saga has ended otherwise."""
    return handler.may_emit_nothing or len(handler.emits) > 1 or other_end in handler.stopped_by


def _called_back(model: Model, good: EventNode) -> Iterator[Finding]:
    """Failures that undo steps beside a good end of another service."""
    undone = {name for handlers in model.undoing.values() for handler in handlers for name in handler.consumes}
    for failure in model.failures:
        if failure.name not in undone or failure.ends or model.together.causes(good.name, failure.name):
            continue
        for one, other in product(good.emitted_by, failure.emitted_by):
            goals = Goal(good.name, frozenset({failure.name}), one), Goal(failure.name, frozenset({good.name}), other)
            paths = model.example(*goals)
            if (
                paths is None
                or _is_decided(model, paths, (good.name, failure.name))
                or model.graph.handler[one].may_emit_nothing
            ):
                continue
            yield Finding(
                code="C14",
                severity="warning",
                handler=one,
                about=(good.name, failure.name, other),
                message=f"{one} may end a saga with {good.name} while {failure.name} of {other} makes steps undo",
                remedy=f"emit {good.name} once nothing can fail any more: join what has to be there for it",
                paths=paths,
            )


def _late_deadlines(model: Model, good: list[EventNode]) -> Iterator[Finding]:
    """Deadlines that fail a saga which has completed, since the end is not among what stops them."""
    for handler in model.graph.handlers:
        failing = [name for name in handler.emits if model.follows(name) & model.dooms]
        if handler.kind != "deadline" or handler.may_emit_nothing or not failing:
            continue
        stopping = frozenset({*handler.stopped_by, *failing})
        for end in good:
            goals = Goal(end.name, stopping), Goal(handler.consumes[0], frozenset({end.name}))
            paths = None if end.name in stopping else model.example(*goals)
            if paths is not None:
                yield Finding(
                    code="C14",
                    severity="warning",
                    handler=handler.id,
                    about=(end.name, failing[0]),
                    message=f"{handler.id} emits {failing[0]} also when {end.name} has completed the saga in time",
                    remedy=f"add {end.name} to its unless=",
                    paths=paths[:1],
                )


RULES = (
    Rule(
        code="C13",
        title="Wait without an end",
        means="One event of a join has come, and another may stay away, since a handler before it may emit something else or nothing, or since "
        "it comes from outside; and the join has no unless=, and no deadline runs in its saga.",
        why="What has come waits for ever, and nobody is told. The customer asks first.",
        mend="Name in unless= what makes the wait pointless, or set a deadline on an event that comes before, and let it emit a failure.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id", ends="failed"):
    order_id: str

class StockReserved(Event, topic="stock", key="order_id"):
    order_id: str

payments, stock, shipping = Service("payments"), Service("stock"), Service("shipping")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined: ...

@stock.on(OrderPlaced)
async def reserve(order: OrderPlaced) -> StockReserved: ...

@shipping.join(PaymentCharged, StockReserved)  # unless=(PaymentDeclined,)
async def ship(paid: PaymentCharged, reserved: StockReserved) -> None: ...
""",
        find=endless_waits,
    ),
    Rule(
        code="C14",
        title="Two owners of one outcome",
        means="Events that end a saga as completed and as failed can come in one saga, and two services emit them. Or one service "
        "does, but one of its handlers always emits its end, whatever came before. Or a failure of another service undoes steps beside a good "
        "end. Or a deadline fails the saga and is not stopped by the good end. Where one service is on both ways and may hold back, it decides.",
        why="A saga has one outcome. Two services that decide at the same moment give it two: confirmed and refunded.",
        mend="Let one service decide. It hears of both causes, keeps the outcome in its store, and emits nothing when the second one comes.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class OrderConfirmed(Event, topic="orders", key="order_id", ends="completed"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id", ends="failed"):
    order_id: str

orders, payments = Service("orders"), Service("payments")

@orders.on(OrderPlaced)
async def confirm(order: OrderPlaced) -> OrderConfirmed: ...  # before the payment is known

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentDeclined | None: ...
""",
        find=disputed_outcomes,
    ),
)

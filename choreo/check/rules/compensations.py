"""Compensations that have nothing to undo, undo twice, come too late, or give up too early."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.finding import Finding, Rule
from choreo.check.model import Model
from choreo.graph import HandlerNode, Undoing


def impossible_compensations(model: Model) -> Iterator[Finding]:
    """Failures at which the step cannot have taken effect, and effects that a second handler undoes again."""
    for compensation in model.graph.handlers:
        if isinstance(compensation.rule, Undoing):
            yield from _nothing_to_undo(model, compensation, compensation.rule)
            yield from _undone_twice(model, compensation)


def _nothing_to_undo(model: Model, compensation: HandlerNode, rule: Undoing) -> Iterator[Finding]:
    for failure in compensation.consumes:
        if not model.loosely.reaches(failure):
            continue  # C02 and C03 say so
        done = [name for name in rule.events if model.loosely.reaches(name)]
        if done and not any(model.loosely.meet(name, failure) for name in done):
            yield Finding(
                code="C08",
                severity="warning",
                handler=compensation.id,
                about=(failure,),
                message=f"{compensation.id} is never called on {failure}: {rule.step} cannot have emitted "
                f"{' or '.join(done)} in the same saga",
                remedy=f"take {failure} out of on=, or look whether another failure is meant",
            )


def _undone_twice(model: Model, compensation: HandlerNode) -> Iterator[Finding]:
    for other in model.graph.handlers:
        same = tuple(name for name in other.emits if name in compensation.emits)
        if other.kind != "on" or other.service != compensation.service or not same:
            continue
        for event in other.consumes:
            failure = next((name for name in compensation.consumes if model.together.meet(name, event)), None)
            if failure is not None:
                yield Finding(
                    code="C08",
                    severity="warning",
                    handler=other.id,
                    about=(compensation.id, event),
                    message=f"{compensation.id} (on {failure}) and {other.id} (on {event}) both emit {same[0]}, and both may be "
                    "called in one saga",
                    remedy=f"let one of them do it: name {event} in on= of {compensation.id}, and remove {other.id}",
                )
                break


def failures_after_completion(model: Model) -> Iterator[Finding]:
    """Failures that come of an event that has ended the saga well."""
    failures = [event.name for event in model.failures if model.follows(event.name) & model.dooms]
    for end in model.ends:
        if end.ends == "completed":
            late = [name for name in failures if model.together.causes(end.name, name)]
            for name in model.first_of(late):
                path = model.path(end.name, name)
                emitter = path[-2]
                yield Finding(
                    code="C09",
                    severity="error",
                    handler=emitter,
                    about=(end.name, name),
                    message=f"{name} can make a saga fail that {end.name} has completed",
                    remedy=f"emit {end.name} after the last step that can fail, or let {emitter} not fail: retry it",
                    paths=(path,),
                )


def weak_compensations(model: Model) -> Iterator[Finding]:
    """Compensations that are not retried, or whose own failure nobody hears."""
    for compensation in model.graph.handlers:
        if compensation.kind != "compensation":
            continue
        if compensation.attempts == 1:
            yield Finding(
                code="C10",
                severity="warning",
                handler=compensation.id,
                about=("attempts",),
                message=f"{compensation.id} is called once only: what fails for a moment leaves the step done",
                remedy="give it retries: retry=Retry(attempts=10, within='1d')",
            )
        for name in compensation.emits:
            event = model.graph.event[name]
            if event.failure and not (event.consumed_by or event.stops):
                yield Finding(
                    code="C10",
                    severity="warning",
                    handler=compensation.id,
                    about=(name,),
                    message=f"{compensation.id} may give up with {name}, which nobody hears",
                    remedy=f"let someone react to {name}, a person in the end; or raise, and it becomes a dead letter",
                )


RULES = (
    Rule(
        code="C08",
        title="Compensation out of place",
        means="A compensation names a failure that never comes in a saga in which the step has emitted what is to be undone, such as the "
        "step's own failure. Or: a plain handler of the service emits what a compensation emits, and both may be called in one saga.",
        why="The first is never called, and hides that the right failure is not named. With the second the customer gets the money twice: "
        "choreo undoes a step once, but knows nothing of handlers that do the same by hand.",
        mend="Take the failure out of on=. Move what is done by hand into the compensation.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id", ends="failed"):
    order_id: str

payments = Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined: ...

@payments.compensates(charge, on=(PaymentDeclined,))  # then nothing was charged
async def refund(charged: PaymentCharged, failure: PaymentDeclined) -> None: ...
""",
        find=impossible_compensations,
    ),
    Rule(
        code="C09",
        title="Failure after completion",
        means='An event that ends the saga as completed leads to a failure that ends it as failed, or that steps are undone on. What ends="completed" '
        "says is final; a step behind it may be retried, but must not fail the saga.",
        why="The customer was told that all is well. Then it is undone, and the saga has two outcomes.",
        mend="Complete the saga after the last step that can fail. What comes behind it is retried until it works.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class OrderConfirmed(Event, topic="orders", key="order_id", ends="completed"):
    order_id: str

class Shipped(Event, topic="shipping", key="order_id"):
    order_id: str

class ShipmentRejected(Failure, topic="shipping", key="order_id", ends="failed"):
    order_id: str

orders, shipping = Service("orders"), Service("shipping")

@orders.on(OrderPlaced)
async def confirm(order: OrderPlaced) -> OrderConfirmed: ...

@shipping.on(OrderConfirmed)
async def ship(order: OrderConfirmed) -> Shipped | ShipmentRejected: ...
""",
        find=failures_after_completion,
    ),
    Rule(
        code="C10",
        title="Compensation that gives up",
        means="A compensation with Retry(attempts=1), or one that emits a failure which nobody reacts to.",
        why="There is nobody behind a compensation: when it gives up, the effect stays. A person must hear of it.",
        mend="Give it many attempts over a long time. What fails for good is a dead letter of kind `compensation`, the loudest there is, so "
        "raising is better than a failure that nobody hears.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class OrderCancelled(Failure, topic="orders", key="order_id", ends="failed"):
    order_id: str

orders, payments = Service("orders"), Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged: ...

@orders.on(PaymentCharged)
async def check(paid: PaymentCharged) -> OrderCancelled | None: ...

@payments.compensates(charge, on=(OrderCancelled,), retry=Retry(attempts=1))
async def refund(charged: PaymentCharged, failure: OrderCancelled) -> None: ...
""",
        find=weak_compensations,
    ),
)

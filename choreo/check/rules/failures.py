"""Failures: who hears of them, and whether all that was done before is undone."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.finding import Finding, Rule
from choreo.check.model import Model
from choreo.check.search import Goal
from choreo.graph import EventNode, HandlerNode, Undoing


def unheard_failures(model: Model) -> Iterator[Finding]:
    """Failures that nobody reacts to, and services that have done something and never hear that it was in vain."""
    for failure in model.failures:
        if not (failure.consumed_by or failure.stops or failure.ends):
            matters = not model.completes or model.is_fatal(failure)
            yield Finding(
                code="C06",
                severity="warning" if matters else "info",
                handler=failure.emitted_by[0],
                about=(failure.name,),
                message=f"nobody hears of {failure.name}, and it does not end the saga",
                remedy='let the services that did something react to it, or say ends="failed" if nothing is to be done',
            )
    fatal = [failure for failure in model.failures if model.is_fatal(failure) and (failure.consumed_by or failure.ends)]
    for step in model.graph.handlers:
        if step.id not in model.undoing and step.kind not in {"compensation", "batch"}:
            yield from _unheard_by(model, step, fatal)


def _unheard_by(model: Model, step: HandlerNode, fatal: list[EventNode]) -> Iterator[Finding]:
    """The first failures that come of a step without any compensation, and that its service never hears of."""
    done = [name for name in step.emits if not model.graph.event[name].failure]
    own = [h for h in model.graph.handlers if h.service == step.service]
    heard = {name for handler in own for name in (*handler.consumes, *handler.stopped_by)}
    vain = {}
    for failure in fatal:
        told = model.follows(failure.name)
        before = [name for name in done if name not in told and model.together.causes(name, failure.name)]
        if before and not told & heard:
            vain[failure.name] = before[0]
    has_effect = model.source(step).has_effect
    for failed in model.first_of(vain) if has_effect or model.undoing else ():
        yield Finding(
            code="C06",
            severity="warning" if has_effect else "info",
            handler=step.id,
            about=(failed,),
            message=f"{step.id} has done its part when {failed} comes, and service {step.service} never hears of it",
            remedy=f"undo it, @{step.service}.compensates({step.name}, on=({failed},)); or nothing, if there is nothing to undo",
            paths=(model.path(vain[failed], failed),),
        )


def incomplete_compensations(model: Model) -> Iterator[Finding]:
    """Steps that are undone after some failures, and not after another one that can come when they are done."""
    for step, compensations in model.undoing.items():
        undone: dict[str, set[str]] = {}
        for compensation in compensations:
            for name in compensation.rule.events if isinstance(compensation.rule, Undoing) else ():
                undone.setdefault(name, set()).update(compensation.consumes)
        for done, failures in undone.items():
            yield from _left_standing(model, step, compensations[0].id, done, failures)


def _left_standing(model: Model, step: str, compensation: str, done: str, failures: set[str]) -> Iterator[Finding]:
    """The first failures after which an event of a step stays as it is."""
    missed = {}
    for failure in model.failures:
        matters = not model.completes or model.is_fatal(failure)
        if matters and not failures & model.follows(failure.name):
            paths = model.example(Goal(done, frozenset({failure.name})), Goal(failure.name))
            if paths is not None:
                missed[failure.name] = paths
    for name in model.first_of(missed):
        yield Finding(
            code="C07",
            severity="error" if model.is_fatal(model.graph.event[name]) else "warning",
            handler=compensation,
            about=(step, done, name),
            message=f"{step} may have emitted {done} when {name} comes, and nothing undoes it",
            remedy=f"add {name} to on= of {compensation}, or let a service emit {' or '.join(sorted(failures))} when it comes",
            paths=missed[name],
        )


RULES = (
    Rule(
        code="C06",
        title="Failure nobody hears",
        means="A failure that no handler reacts to and that does not end its saga. Or: a step that has no compensation lies before a "
        "failure, and its service reacts neither to the failure nor to anything that comes of it. That is a warning if the step's source shows "
        "an effect: it writes through ctx.db, uses ctx.step or an idempotency key, calls clients that do not only read, or hands ctx on.",
        why="The others go on as if all were well: the stock stays reserved, the customer waits.",
        mend="Declare a compensation beside the step, or react to the failure. A failure after which nothing is to be done says "
        'ends="failed".',
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id"):  # and then?
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

payments = Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined: ...
""",
        find=unheard_failures,
    ),
    Rule(
        code="C07",
        title="Compensation incomplete",
        means="A step is undone after some failures, but another failure can come when it has taken effect, and neither that failure nor "
        "anything that comes of it is named in on=. Each step is held against each failure that makes the saga fail; the example "
        "shows how both come in one saga. Where no event says ends=, every failure counts, as a warning. The search is bounded: no proof.",
        why="The effect stays though the saga has failed: money taken for an order that was cancelled.",
        mend="Add the failure to on= of the compensation, or name there the one event that a service emits after every failure, such "
        "as OrderCancelled. If the failure hurts nobody, let some event say how sagas end (ends=...), so that the check can tell.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class Shipped(Event, topic="shipping", key="order_id", ends="completed"):
    order_id: str

class AddressUnknown(Failure, topic="shipping", key="order_id", ends="failed"):
    order_id: str

class ShipmentRejected(Failure, topic="shipping", key="order_id", ends="failed"):
    order_id: str

payments, shipping = Service("payments"), Service("shipping")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged: ...

@payments.compensates(charge, on=(AddressUnknown,))  # and when the shipment is rejected?
async def refund(charged: PaymentCharged, failure: AddressUnknown) -> None: ...

@shipping.on(PaymentCharged)
async def ship(paid: PaymentCharged) -> Shipped | AddressUnknown | ShipmentRejected: ...
""",
        find=incomplete_compensations,
    ),
)

"""Events that nobody hears, and handlers that wait for what nobody says."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.finding import Finding, Rule
from choreo.check.model import Model
from choreo.graph import Undoing


def orphan_events(model: Model) -> Iterator[Finding]:
    """Events after which nothing comes, though nobody says that they end anything."""
    twins = {_bare(event.name): event for event in model.graph.entries}
    undone = {name for h in model.graph.handlers if isinstance(h.rule, Undoing) for name in h.rule.events}
    for event in model.graph.outcomes:
        if event.failure or event.ends or event.compensation or event.stops or event.name in undone:
            continue
        twin = twins.get(_bare(event.name))
        if twin is not None:
            yield Finding(
                code="C01",
                severity="error",
                handler=event.emitted_by[0],
                about=(event.name, twin.name),
                message=f"nobody reacts to {event.name}, and {twin.consumed_by[0]} waits for {twin.name}, which nobody emits",
                remedy="let both sides use one name (class argument name=...)",
            )
        elif model.ends:
            yield Finding(
                code="C01",
                severity="info",
                handler=event.emitted_by[0],
                about=(event.name,),
                message=f"nobody reacts to {event.name}, and it gives its saga no outcome",
                remedy="nothing, if others are to know it; else let a handler react to it, or say ends=...",
            )


def _bare(name: str) -> str:
    """A type name without its namespace, however it is spelt."""
    return name.rpartition(".")[2].replace("_", "").lower()


def dead_subscriptions(model: Model) -> Iterator[Finding]:
    """Compensations, joins and deadlines that name an event which no service emits."""
    entries = {event.name for event in model.graph.entries}
    for handler in model.graph.handlers:
        named = {name: "unless" for name in handler.stopped_by if name not in entries}
        if handler.kind == "compensation":
            named |= dict.fromkeys(handler.consumes, "on")
        for name, argument in named.items():
            if not model.graph.event[name].emitted_by:
                yield _dead(handler.id, argument, name, outside=name in entries)


def _dead(handler: str, argument: str, name: str, *, outside: bool) -> Finding:
    remedy = f"emit {name}, or name what is emitted instead; if it comes from outside, let a service react to it (@service.on)"
    return Finding(
        code="C02",
        severity="info" if outside else "error",
        handler=handler,
        about=(name,),
        message=f"{handler} is declared {argument}={name}, which no service emits" + ", only the outside" * outside,
        remedy="nothing, if it is published from outside; else emit it" if outside else remedy,
    )


RULES = (
    Rule(
        code="C01",
        title="Orphan event",
        means="An event that handlers emit, that no handler is called with, and that neither stops nor undoes anything, while it is no failure and does "
        "not say how it ends its saga. It is an error where another service waits for an event of nearly the same name.",
        why="Events are found by their names. After a renaming on one side alone the saga stands still, and nothing fails.",
        mend="Use one name on both sides. If the event is the end of the saga, say so: class OrderConfirmed(Event, ..., "
        'ends="completed"). If it is only meant for others, it may stay.',
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id", name="payments.PaymentCharged"):
    order_id: str

class Charged(Event, topic="payments", key="order_id", name="PaymentCharged"):  # shipping's view: its name was not changed
    order_id: str

payments, shipping = Service("payments"), Service("shipping")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged: ...

@shipping.on(Charged)
async def ship(paid: Charged) -> None: ...
""",
        find=orphan_events,
    ),
    Rule(
        code="C02",
        title="Dead subscription",
        means="A compensation (on=) or a join or deadline (unless=) that names an event which no service emits. An event that a handler "
        "of another kind is called with may come from outside; one that only undoes or stops something waits for nobody.",
        why="The compensation never runs, the deadline is never stopped. Both show only when something else has failed.",
        mend="Name the event that is really emitted, or let a service emit it. If it is published from outside, let the service that "
        "should know of it react to it with @service.on.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class ShipmentRefused(Failure, topic="shipping", key="order_id"):  # shipping calls it ShipmentRejected
    order_id: str

payments = Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged: ...

@payments.compensates(charge, on=(ShipmentRefused,))
async def refund(charged: PaymentCharged, failure: ShipmentRefused) -> None: ...
""",
        find=dead_subscriptions,
    ),
)

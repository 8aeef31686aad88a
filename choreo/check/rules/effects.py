"""Effects outside of choreo's transaction."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.finding import Finding, Rule
from choreo.check.model import Model


def unkeyed_effects(model: Model) -> Iterator[Finding]:
    """Calls of outside services that change something, in handlers that mention no idempotency key."""
    for handler in model.graph.handlers:
        for call in model.source(handler).calls:
            yield Finding(
                code="C16",
                severity="warning",
                handler=handler.id,
                about=(call,),
                message=f"{handler.id} calls {call} without an idempotency key: after a crash it is called again",
                remedy="hand over ctx.idempotency_key, which is the same in every attempt",
            )


RULES = (
    Rule(
        code="C16",
        title="Effect without an idempotency key",
        means="A handler calls a client of its lifespan (ctx.state...) or a library that talks to other machines, by a name that does not sound "
        "like reading, and mentions neither ctx.idempotency_key nor ctx.event_id. Read from the handler's own source: a hint.",
        why="What is written through ctx.db is undone when a handler fails or its process dies. What another machine did is not, and the "
        "handler runs again: the card is charged twice.",
        mend="Hand ctx.idempotency_key to the other side. If it knows no such keys, write into a table of yours and let a job of its own send "
        "from there.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

payments = Service("payments")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced, ctx: Context) -> PaymentCharged:
    await ctx.state.gateway.charge(order.order_id)  # idempotency_key=ctx.idempotency_key
    return PaymentCharged(order_id=order.order_id)
""",
        find=unkeyed_effects,
    ),
)

"""Sagas put together by hand, for what only shows them."""

from __future__ import annotations

from dataclasses import replace

from choreo import Context, Event, Failure, Service
from choreo.choreography import Choreography
from choreo.dlq.letters import Place
from choreo.saga.model import Duty, Effect, Expected, Saga, SagaEvent

T0 = 1_792_000_000_000


class Placed(Event, topic="orders", key="order_id"):
    order_id: str


class Charged(Event, topic="payments", key="order_id"):
    order_id: str


class Declined(Failure, topic="payments", key="order_id"):
    order_id: str


class Refunded(Event, topic="payments", key="order_id"):
    order_id: str


class Reserved(Event, topic="stock", key="order_id"):
    order_id: str


class SoldOut(Failure, topic="stock", key="order_id", ends="failed"):
    order_id: str


class Shipped(Event, topic="shipping", key="order_id", ends="completed"):
    order_id: str


pay, stock, ship, mail = (Service(name, store="memory://") for name in ("pay", "stock", "ship", "mail"))


@pay.on(Placed)
async def charge(order: Placed, ctx: Context) -> Charged | Declined: ...


@pay.compensates(charge, on=(SoldOut,))
async def refund(charged: Charged, failure: SoldOut, ctx: Context) -> Refunded: ...


@stock.on(Placed)
async def reserve(order: Placed, ctx: Context) -> Reserved | SoldOut: ...


@ship.join(Charged, Reserved)
async def send(charged: Charged, reserved: Reserved, ctx: Context) -> Shipped: ...


@mail.on(Placed, Shipped)
async def tell(event: Placed | Shipped, ctx: Context) -> None: ...


GRAPH = Choreography.of([pay, stock, ship, mail]).graph


def event(id_: str, type_: str, cause: str | None, handler: str | None, at: int, **more) -> SagaEvent:
    given = {
        "source": handler.partition(".")[0] if handler else "web", "compensates": None, "parent": None,
        "places": (Place(type_.lower(), 0, at),), "produced_ms": T0 + at, "written_ms": T0 + at + 2, "key": "o-1",
        "failure": type_ in {"Declined", "SoldOut"}, "trace_id": "",
        "ends": {"Shipped": "completed", "SoldOut": "failed"}.get(type_), "oddity": "",
    }  # fmt: skip
    return SagaEvent(id=id_, type=type_, cause=cause, handler=handler, **(given | more))


def duty(handler: str, of: str, status: str = "done", *emitted: str, **more) -> Duty:
    return Duty(handler=handler, event=of, status=status, emitted=emitted, **more)


def saga(events: list[SagaEvent], duties: list[Duty], state: str, reason: str, **more) -> Saga:
    last = max((event.produced_ms for event in events), default=T0)
    given = {
        "type": events[0].type if events else "", "key": events[0].key if events else "", "outcome": None, "ledger": (),
        "expected": (), "started_ms": T0, "updated_ms": last, "ended_ms": last, "parent": None, "changes_ms": None,
    }  # fmt: skip
    return Saga(
        id="0198c3f2-0000-7000-8000-000000000001", state=state, reason=reason, events=tuple(events), duties=tuple(duties),
        **(given | more),
    )  # fmt: skip


PLACED = event("e1", "Placed", None, None, 0, trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
CHARGED = event("e2", "Charged", "e1", "pay.charge", 12)
RESERVED = event("e3", "Reserved", "e1", "stock.reserve", 15)
SHIPPED = event("e4", "Shipped", "e3", "ship.send", 40)
SOLD_OUT = event("e5", "SoldOut", "e1", "stock.reserve", 20)
REFUNDED = event("e6", "Refunded", "e5", "pay.refund", 55, compensates="e2")

COMPLETED = saga(
    [PLACED, CHARGED, replace(RESERVED, places=(*RESERVED.places, Place("reserved", 0, 99))), SHIPPED],
    [
        duty("mail.tell", "e1"), duty("pay.charge", "e1", "done", "e2", attempts=3), duty("stock.reserve", "e1", "done", "e3"),
        duty("ship.send", "e2", "done", "e4"), duty("ship.send", "e3", "done", "e4"), duty("mail.tell", "e4"),
    ],
    "completed", "Shipped ends it as completed", outcome="completed",
    ledger=(Effect(event="e2", type="Charged", step="pay.charge", compensation="pay.refund", status="kept"),),
)  # fmt: skip
COMPENSATED = saga(
    [PLACED, CHARGED, SOLD_OUT, REFUNDED],
    [
        duty("mail.tell", "e1"), duty("pay.charge", "e1", "done", "e2"), duty("stock.reserve", "e1", "done", "e5"),
        duty("ship.send", "e2", "stopped"), duty("pay.refund", "e5", "done", "e6"),
    ],
    "compensated", "SoldOut came, and all is undone", outcome="failed",
    ledger=(
        Effect(event="e2", type="Charged", step="pay.charge", compensation="pay.refund", status="done", failure="e5", undone_by=("e6",)),
    ),
)  # fmt: skip
DEAD = saga(
    [PLACED, CHARGED],
    [
        duty("mail.tell", "e1", "retrying", due_ms=T0 + 5000, attempts=2, error="OSError: no route"),
        duty("pay.charge", "e1", "done", "e2"),
        duty("stock.reserve", "e1", "dead", attempts=5, error="KeyError: 'sku'", letter="4f2a90"),
        duty("ship.send", "e2", "gathering"),
    ],
    "failed", "stock.reserve has given up on Placed", ended_ms=None,
    ledger=(Effect(event="e2", type="Charged", step="pay.charge", compensation="pay.refund", status="kept"),),
    expected=(Expected(what=("Shipped",), handler="ship.send", until_ms=None, because="it waits for Reserved"),),
)  # fmt: skip


def wide(count: int, *, below: int = 0) -> Saga:
    """One event that has caused so many, and each of these so many others."""
    events = [PLACED]
    duties = [duty("pay.charge", "e1", "done", *(f"w{n}" for n in range(count)))]
    for n in range(count):
        events.append(event(f"w{n}", "Charged", "e1", "pay.charge", n + 1))
        duties += [duty("ship.send", f"w{n}", "done", *(f"w{n}-{m}" for m in range(below)))]
        events += [event(f"w{n}-{m}", "Moved", f"w{n}", "ship.send", n + 2) for m in range(below)]
    return saga(events, duties, "running", "it goes on", ended_ms=None)


def deep(count: int) -> Saga:
    """A chain of so many events."""
    events = [PLACED, *(event(f"d{n}", "Moved", f"d{n - 1}" if n else "e1", "ship.send", n) for n in range(count))]
    return saga(events, [], "running", "it goes on", ended_ms=None)


HOSTILE = "\x1b[31mred\x1b[0m\n<script>alert('1')</script> \u202e \" ; --> %% | `#"
EVIL = saga(
    [
        event("h1", HOSTILE, "nowhere", None, 0, source=HOSTILE, key=HOSTILE, oddity=HOSTILE, trace_id=HOSTILE),
        event(HOSTILE, HOSTILE, "h1", f"{HOSTILE}.{HOSTILE}", -500, compensates=HOSTILE),
        event("c1", "Round", "c2", None, 5, written_ms=T0 - 10),
        event("c2", "Round", "c1", None, 6, produced_ms=-(10**17), written_ms=10**17),
    ],
    [duty(HOSTILE, "h1", "dead", error=HOSTILE, letter=HOSTILE), duty("x.y", "missing", "pending", due_ms=10**17)],
    "diverged", HOSTILE, key=HOSTILE, type=HOSTILE,
    ledger=(Effect(event="h1", type=HOSTILE, step=HOSTILE, compensation=None, status="uncovered", failure=HOSTILE),),
    expected=(Expected(what=(HOSTILE,), handler=None, until_ms=10**17, because=HOSTILE),),
)  # fmt: skip

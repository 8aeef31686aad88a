"""Handlers that are never called, sagas that never end, and events that go round in circles."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.check.cycles import shortest_cycles
from choreo.check.finding import Finding, Path, Rule
from choreo.check.model import Model
from choreo.check.ways import Way
from choreo.graph import HandlerNode


def unreachable_handlers(model: Model) -> Iterator[Finding]:
    """Handlers that no event from outside leads to."""
    called = {way.handler.id for way in model.ways if model.loosely.fires(way)}
    for handler in model.graph.handlers:
        if handler.id in called or handler.kind == "compensation":
            continue  # of compensations, C02 and C08 say more
        missing = tuple(name for name in handler.consumes if not model.loosely.reaches(name))
        if _is_consequence(model, handler, missing, called):
            continue
        if handler.kind == "join" and not missing:
            reason = f"{' and '.join(handler.consumes)} never come in one saga, they are alternatives"
        elif handler.kind == "join":
            reason = f"{' and '.join(missing)} can never come"
        else:
            reason = f"no event from outside leads to {' or '.join(missing)}"
        yield Finding(
            code="C03",
            severity="error",
            handler=handler.id,
            about=missing or handler.consumes,
            message=f"{handler.id} is never called: {reason}",
            remedy="emit what it waits for on a way that is open, or remove it",
        )


def _is_consequence(model: Model, handler: HandlerNode, missing: tuple[str, ...], called: set[str]) -> bool:
    """Whether the events are missing only because another handler, which is found itself, is never called."""
    behind = {event for emitted in handler.emits for event in model.follows(emitted)}
    return any(
        emitter not in called and not behind & set(model.graph.handler[emitter].consumes)
        for name in missing
        for emitter in model.graph.event[name].emitted_by
    )


def endless_sagas(model: Model) -> Iterator[Finding]:
    """Events after which no branch can end, and sagas without an outcome where others have one."""
    ending = _ending(model)
    for event in model.graph.events:
        causes = {cause for way in model.ways if event.name in way.emits for cause in way.causes}
        is_stuck = model.loosely.reaches(event.name) and event.name not in ending
        if is_stuck and (event.name in model.starts or causes & ending):
            yield Finding(
                code="C04",
                severity="error",
                handler=event.consumed_by[0],
                about=(event.name,),
                message=f"no end can be reached from {event.name}",
                remedy="let some handler behind it emit an event that ends the saga, or nothing",
                paths=(_around(model, event.name),),
            )
    for start in map(model.graph.event.__getitem__, model.starts if model.ends else ()):
        behind = model.follows(start.name)
        if len(behind) > 1 and not any(model.graph.event[name].ends for name in behind):
            yield Finding(
                code="C04",
                severity="info",
                handler=start.consumed_by[0],
                about=(start.name,),
                message=f"no event that ends a saga can come after {start.name}, though other sagas have ends",
                remedy="nothing, if it only goes on with a saga or has no outcome; else say ends=... of its last event",
            )


def _ending(model: Model) -> set[str]:
    """The events after which some branch can end. At a join that never fires it ends too: C03 says that."""
    found = {event.name for event in model.graph.events if event.ends or not event.consumed_by}
    ways = [way for way in model.ways if model.loosely.reaches(way.causes[0])]
    found |= {cause for way in ways if _may_stop(way) or not model.loosely.fires(way) for cause in way.causes}
    before = -1
    while before != len(found):
        before = len(found)
        found |= {cause for way in ways if found & set(way.emits) for cause in way.causes}
    return found


def _may_stop(way: Way) -> bool:
    """Whether a branch may end with this handler: it may emit nothing, or is not called in every saga."""
    return way.handler.may_emit_nothing or way.handler.kind in {"compensation", "batch"} or bool(way.handler.stopped_by)


def _around(model: Model, event: str) -> Path:
    """From the event round to one that has been there before, or to where it is stuck."""
    path: Path = (event,)
    while True:
        way = next((way for way in model.reacting[path[-1]] if way.emits), None)
        if way is None or way.emits[0] in path:
            return path if way is None else (*path, way.handler.id, way.emits[0])
        path = (*path, way.handler.id, way.emits[0])


def unbounded_cycles(model: Model) -> Iterator[Finding]:
    """Circles of events that nothing bounds: no counter in an event, no join or compensation, which are called once."""
    ending = _ending(model)
    following: dict[str, dict[str, HandlerNode]] = {event.name: {} for event in model.graph.events}
    for way in model.ways:
        emits = way.handler.emits if way.handler.kind == "batch" else way.emits
        if way.handler.kind in {"join", "compensation"} or not model.loosely.fires(way):
            continue
        for cause in way.causes:
            for emitted in emits:
                if not {cause, emitted} & model.counting:
                    following[cause].setdefault(emitted, way.handler)
    for cycle in shortest_cycles({event: list(after) for event, after in following.items()}):
        handlers = [following[one][other] for one, other in zip(cycle, (*cycle[1:], cycle[0]), strict=True)]
        if any(event in ending for event in cycle):  # else C04 says so
            yield _unbounded(cycle, handlers)


def _unbounded(cycle: tuple[str, ...], handlers: list[HandlerNode]) -> Finding:
    path = tuple(name for event, handler in zip(cycle, handlers, strict=True) for name in (event, handler.id))
    return Finding(
        code="C05",
        severity="info" if any(handler.kind == "deadline" for handler in handlers) else "warning",
        handler=handlers[0].id,
        about=cycle,
        message="events go round in a circle, and nothing bounds how often",
        remedy="count the rounds in a field of the event (attempt: int), and leave the circle when there were enough",
        paths=((*path, cycle[0]),),
    )


RULES = (
    Rule(
        code="C03",
        title="Unreachable handler",
        means="A handler that no event from outside leads to: its events are emitted only in circles, or by other handlers that are never "
        "called; or a join of events that exclude each other, because one handler emits one or the other.",
        why="Code that looks like part of the flow and is not. A join of alternatives waits in every saga, for ever.",
        mend="Join what comes together, or take need=1 where either will do. Remove what is dead.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class PaidByVoucher(Event, topic="payments", key="order_id"):
    order_id: str

payments, shipping = Service("payments"), Service("shipping")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged | PaidByVoucher: ...  # one or the other

@shipping.join(PaymentCharged, PaidByVoucher)  # both
async def ship(paid: PaymentCharged, voucher: PaidByVoucher) -> None: ...
""",
        find=unreachable_handlers,
    ),
    Rule(
        code="C04",
        title="No end reachable",
        means="An event after which every branch goes round in circles: no event that ends the saga, none that nobody reacts to, and no handler "
        "that may emit nothing lies behind it. As a hint also: sagas that begin with some event have no end, though others say ends=.",
        why="Such a saga keeps the services busy for ever, and is never over, in the tracker as in the books.",
        mend="Give some handler behind it a way out.",
        example="""
class Asked(Event, topic="asks", key="ask_id"):
    ask_id: str

class Answered(Event, topic="asks", key="ask_id"):
    ask_id: str

desk, client = Service("desk"), Service("client")

@desk.on(Asked)
async def answer(asked: Asked) -> Answered: ...

@client.on(Answered)
async def ask_again(answered: Answered) -> Asked: ...

class Begun(Event, topic="asks", key="ask_id"):
    ask_id: str

@client.on(Begun)
async def ask(begun: Begun) -> Asked: ...
""",
        find=endless_sagas,
    ),
    Rule(
        code="C05",
        title="Unbounded circle of events",
        means="Events that lead back to themselves, while none of them has a field that counts (a whole number named attempt, retries, round, "
        "level and the like), and no join or compensation, which are called once, is among the handlers. There is a way out (else it is C04), and "
        "nothing says when it is taken. Services may call each other back and forth; only events that come round again are meant. A circle that "
        "passes a deadline is slow, and only worth a look.",
        why="One event that never leaves the circle keeps the services busy for ever, and every retry storm begins like this.",
        mend="Count the rounds in the event, and emit something else after the last one.",
        example="""
class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class ChargeWanted(Event, topic="payments", key="order_id"):
    order_id: str

class ChargeFailed(Failure, topic="payments", key="order_id"):
    order_id: str

orders, payments = Service("orders"), Service("payments")

@orders.on(OrderPlaced, ChargeFailed)  # how often?
async def request(event: OrderPlaced | ChargeFailed) -> ChargeWanted: ...

@payments.on(ChargeWanted)
async def charge(wanted: ChargeWanted) -> ChargeFailed | None: ...
""",
        find=unbounded_cycles,
    ),
)

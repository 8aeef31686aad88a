"""Declarations of compensations, joins, deadlines and batches: what is recorded, and what is refused at import."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from choreo import DeclarationError, Event, Failure, Service
from choreo.handler import Batch, Compensation, Deadline, Join


class Placed(Event, topic="orders", key="order_id"):
    order_id: str
    parcel_id: str = ""


class Charged(Event, topic="payments", key="order_id"):
    order_id: str
    parcel_id: str = ""


class Reserved(Event, topic="stock", key="order_id"):
    order_id: str


class Declined(Failure, topic="payments", key="order_id"):
    order_id: str


class Cancelled(Failure, topic="orders", key="order_id", ends="failed"):
    order_id: str


class MaybeLeft(Event, topic="lefts", key="order_id"):
    order_id: str
    parcel_id: str | None


class NotedLeft(Event, topic="lefts", key="order_id"):
    order_id: str
    parcel_id: Annotated[str | None, "a note"]


class AnythingLeft(Event, topic="lefts", key="order_id"):
    order_id: str
    parcel_id: Any


@pytest.fixture
def service():
    made = Service("payments")

    @made.on(Placed)
    async def charge(order: Placed) -> Charged | Declined: ...

    @made.on(Reserved)
    async def note(reserved: Reserved) -> None: ...

    @made.on(Charged)
    async def spread(charged: Charged) -> list[Reserved]: ...

    @made.on(Declined)
    async def only_fail(declined: Declined) -> Cancelled: ...

    return made


def rule_of(service, name):
    return service.handlers[name].rule


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_a_compensation_takes_what_its_step_emits_but_no_failure(service):
    @service.compensates("charge", on=(Cancelled, Declined))
    async def refund(charged, failure) -> None: ...

    assert rule_of(service, "refund") == Compensation(
        step="charge", failures=(Cancelled, Declined), undoes=(Charged,), takes_list=False
    )
    handler = service.handlers["refund"]
    assert handler.consumes == (Cancelled, Declined)
    assert (handler.ordered, handler.takes_context) == (False, False)


def test_a_compensation_of_a_step_that_emits_several_takes_a_list(service):
    @service.compensates("spread", on=(Cancelled,))
    async def gather(reserved: list[Reserved], failure: Cancelled, ctx: object) -> None: ...

    assert rule_of(service, "gather").takes_list
    assert service.handlers["gather"].takes_context


def test_two_failures_of_one_step_may_have_a_compensation_each(service):
    @service.compensates("charge", on=(Cancelled,))
    async def refund(charged: Charged, failure: Cancelled) -> None: ...

    @service.compensates("charge", on=(Declined,))
    async def refund_otherwise(charged: Charged, failure: Declined) -> None: ...

    assert len(service.handlers) == 6


def test_joins_of_all_kinds(service):
    @service.join(Placed, Charged, unless=(Cancelled,))
    async def ship(placed: Placed, charged: Charged) -> None: ...

    @service.join(Placed, Reserved, need=1)
    async def first(placed: Placed | None, reserved: Reserved | None) -> None: ...

    def count(placed):
        return 3

    @service.join(Placed, Reserved, count=count)
    async def gather(placed: Placed, reserved: list[Reserved], ctx: object) -> None: ...

    @service.join(Reserved, count=2)
    def pair(reserved) -> None: ...

    assert rule_of(service, "ship") == Join(events=(Placed, Charged), by=None, need=2, count=None, unless=(Cancelled,))
    assert service.handlers["ship"].consumes == (Placed, Charged, Cancelled)
    assert rule_of(service, "first").need == 1
    assert rule_of(service, "gather").count is count
    assert rule_of(service, "pair").gathers


def test_deadlines_and_reminders(service):
    @service.deadline(Placed, within="15m", unless=(Charged,))
    async def expire(placed: Placed) -> Cancelled: ...

    @service.deadline(Placed, every="1d", times=3, grace=2)
    async def remind(placed: Placed) -> None: ...

    assert rule_of(service, "expire") == Deadline(
        event=Placed, within=900.0, every=0.0, times=1, unless=(Charged,), grace=0.5
    )
    assert rule_of(service, "remind") == Deadline(
        event=Placed, within=86_400.0, every=86_400.0, times=3, unless=(), grace=2.0
    )


def test_a_batch():
    lake = Service("lake")

    @lake.batch(Placed, Charged, max_size=10, max_age="2s", per="key")
    async def load(events: list[Placed | Charged], ctx: object) -> None: ...

    assert rule_of(lake, "load") == Batch(max_size=10, max_age=2.0, per="key")


# --- what is refused --------------------------------------------------------------------------------------------------


def compensates(step, on, annotation=Charged, failure=Cancelled):
    def declare(service):
        async def undo(emitted: annotation, failed: failure) -> None: ...

        undo.__annotations__ = {"emitted": annotation, "failed": failure, "return": None}
        service.compensates(step, on=on)(undo)

    return declare


def join(*events, types=None, **options):
    def declare(service):
        async def fire(one, two) -> None: ...

        async def fire_one(one) -> None: ...

        function = fire if len(events) == 2 else fire_one
        for name, annotation in zip(("one", "two"), types or (), strict=False):
            function.__annotations__[name] = annotation
        service.join(*events, **options)(function)

    return declare


def deadline(event=Placed, annotation=Placed, **options):
    def declare(service):
        async def late(placed) -> None: ...

        late.__annotations__["placed"] = annotation
        service.deadline(event, **options)(late)

    return declare


def batch(*events, annotation=list[Reserved], own=False, **options):
    def declare(service):
        lake = service if own else Service("lake")

        async def load(events) -> None: ...

        load.__annotations__["events"] = annotation
        lake.batch(*events, **options)(load)

    return declare


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (compensates("nobody", (Cancelled,)), "'nobody', which is no handler of service 'payments'"),
        (compensates("note", (Cancelled,)), "emits nothing that parameter 'emitted' takes: it emits "),
        (compensates("only_fail", (Declined,), failure=Declined), "emits nothing that parameter 'emitted' takes"),
        (compensates("charge", (Cancelled,), annotation=Reserved), "emits nothing that parameter 'emitted' takes"),
        (compensates("charge", ()), "names no failure"),
        (compensates("charge", Cancelled), "has on=Cancelled (write on=(Cancelled,))"),
        (compensates("charge", (Reserved,)), "on=Reserved, which is no failure"),
        (compensates("charge", (Declined,)), "parameter 'failed' takes Cancelled"),
        (compensates("spread", (Cancelled,), annotation=Reserved), "may emit several events at once"),
        (join(Placed), "joins Placed (name two events or more"),
        (join(), "joins nothing"),
        (join(Placed, Reserved, by="parcel_id"), "joins by 'parcel_id', which Reserved does not have"),
        (join(Placed, Charged, by="parcel_id", unless=(Cancelled,)), "by 'parcel_id', which Cancelled does not have"),
        (join(Placed, Charged, need=3), "needs 3 of 2 events"),
        (join(Placed, Charged, need=1, count=2), "need= and count="),
        (join(Placed, Charged, need=1, types=(Placed, Charged)), "takes no None (annotate it as Placed | None)"),
        (
            join(Placed, Charged, types=(Charged, Charged)),
            "is declared on Placed, but its parameter 'one' takes Charged",
        ),
        (join(Placed, Charged, count=2, types=(Placed, Charged)), "is declared on list[Charged]"),
        (join(Reserved, count=lambda event: 3), "would never know how many Reserved to gather"),
        (join(Reserved, count=0), "gathers 0 events"),
        (join(Reserved, count="many"), "count='many'"),
        (join(Placed, Cancelled, unless=(Cancelled,)), "joins Cancelled and names it in unless="),
        (join(Placed, str), "is declared on <class 'str'>, which is no event"),
        (deadline(), "names no time"),
        (deadline(every="1d"), "names every= alone"),
        (deadline(within="1d", times=3), "names times= alone"),
        (deadline(every="1d", times=0), "is called 0 times"),
        (deadline(every=0, times=2), "that is all at once"),
        (deadline(within="soon"), "'soon' is no duration"),
        (deadline(within="1d", annotation=Charged), "parameter 'placed' takes Charged"),
        (deadline(within="1d", unless=(int,)), "is declared on <class 'int'>, which is no event"),
        (batch(Reserved, max_size=0), "max_size=0"),
        (batch(Reserved, max_age=0), "every batch would hold one event"),
        (batch(Reserved, per="topic"), "per='topic'"),
        (batch(Reserved, annotation=Reserved), "is declared on list[Reserved]"),
        (batch(), "names no event"),
    ],
)
def test_misuse_is_refused_at_import_with_the_reason(service, declare, told):
    before = dict(service.handlers)
    with pytest.raises(DeclarationError) as refusal:
        declare(service)
    assert told in str(refusal.value)
    assert service.handlers == before


def test_one_failure_does_not_undo_a_step_twice(service):
    compensates("charge", (Cancelled,))(service)

    async def again(charged: Charged, failure: Cancelled) -> None: ...

    with pytest.raises(DeclarationError, match=r"undoes charge on Cancelled, as payments.undo does"):
        service.compensates("charge", on=(Cancelled,))(again)


def test_compensations_of_different_events_of_a_step_name_the_same_failures():
    service = Service("orders")

    @service.on(Placed)
    async def both(order: Placed) -> Charged | Reserved: ...

    @service.compensates(both, on=(Cancelled,))
    async def undo_charge(charged: Charged, failure: Cancelled) -> None: ...

    async def undo_reserved(reserved: Reserved, failure: Failure) -> None: ...

    with pytest.raises(DeclarationError, match="undo different events of both on different failures"):
        service.compensates(both, on=(Declined,))(undo_reserved)
    service.compensates(both, on=(Cancelled,))(undo_reserved)


def test_a_compensation_is_not_undone(service):
    @service.compensates("charge", on=(Cancelled,))
    async def refund(charged: Charged, failure: Cancelled) -> Reserved: ...

    with pytest.raises(DeclarationError, match="which is a compensation itself"):

        @service.compensates(refund, on=(Declined,))
        async def again(reserved: Reserved, failure: Declined) -> None: ...


def test_of_a_function_with_two_names_the_step_is_named(service):
    async def twice(order: Placed) -> Reserved: ...

    service.on(Placed, name="one")(twice)
    service.on(Placed, name="two")(twice)

    async def undo(reserved: Reserved, failure: Cancelled) -> None: ...

    with pytest.raises(DeclarationError, match="which is several handlers"):
        service.compensates(twice, on=(Cancelled,))(undo)
    service.compensates("two", on=(Cancelled,))(undo)
    assert rule_of(service, "undo").step == "two"


@pytest.mark.parametrize("kind", ["compensates", "join", "deadline", "batch"])
def test_what_waits_needs_a_store(kind):
    service = Service("payments", transactional=True)

    @service.on(Placed)
    async def charge(order: Placed) -> Charged: ...

    declare = {
        "compensates": compensates("charge", (Cancelled,)),
        "join": join(Placed, Charged),
        "deadline": deadline(within="1d"),
        "batch": batch(Reserved, own=True),
    }
    with pytest.raises(DeclarationError, match="needs a store, and service 'payments' is transactional"):
        declare[kind](service)


@pytest.mark.parametrize("first", ["on", "batch"])
def test_what_comes_in_batches_comes_to_nobody_else_of_the_service(first):
    service = Service("lake")

    def one():
        @service.on(Placed)
        async def look(placed: Placed) -> None: ...

    def many():
        @service.batch(Placed)
        async def load(placed: list[Placed]) -> None: ...

    declare = [one, many] if first == "on" else [many, one]
    declare[0]()
    with pytest.raises(DeclarationError, match="both take Placed, one of them in batches"):
        declare[1]()


def test_an_outcome_is_one_of_two():
    with pytest.raises(DeclarationError, match="ends='done'"):

        class Done(Event, topic="orders", key="order_id", ends="done"):
            order_id: str

    with pytest.raises(DeclarationError, match="is a failure and ends its saga as completed"):

        class Odd(Failure, topic="orders", key="order_id", ends="completed"):
            order_id: str

    assert Cancelled.contract.ends == "failed"
    assert Placed.contract.ends is None


@pytest.mark.parametrize("left", [MaybeLeft, NotedLeft, AnythingLeft])
def test_a_join_by_a_field_that_may_be_none_would_join_strangers(service, left):
    async def meet(charged, left): ...

    meet.__annotations__ = {"charged": Charged, "left": left, "return": None}
    with pytest.raises(DeclarationError, match=f"by 'parcel_id', which may be None in {left.__name__}: strangers"):
        service.join(Charged, left, by="parcel_id")(meet)

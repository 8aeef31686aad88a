"""Which handlers get which event type."""

from choreo import Event, Service
from choreo.runtime.decoding import reactions_of


class Placed(Event, topic="orders", key="id"):
    id: str


class Paid(Event, topic="payments", key="id", name="acme.Paid"):
    id: str


def test_every_handler_of_a_type_is_found_by_its_name_on_the_wire():
    service = Service("s")

    @service.on(Placed, Paid)
    async def both(event: Placed | Paid) -> None: ...

    @service.on(Paid)
    async def one(event: Paid) -> None: ...

    reactions = reactions_of(service)
    assert set(reactions) == {"Placed", "acme.Paid"}
    assert reactions["Placed"].event_class is Placed
    assert [handler.name for handler in reactions["Placed"].handlers] == ["both"]
    assert reactions["acme.Paid"].event_class is Paid
    assert [handler.name for handler in reactions["acme.Paid"].handlers] == ["both", "one"], (
        "in the order of declaration"
    )


def test_events_that_are_only_emitted_have_no_route():
    service = Service("s")

    @service.on(Placed)
    async def pay(event: Placed) -> Paid: ...

    assert set(reactions_of(service)) == {"Placed"}

import itertools
import json
import re

import pytest

from choreo import Choreography, DeclarationError, Event, Failure, Service, route
from choreo.choreography import dead_letter_topic
from choreo.graph import Batching, Edge, Joining, Timing, Undoing


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str


class OrderRetried(Event, topic="orders", key="order_id"):
    order_id: str


class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str


class PaymentDeclined(Failure, topic="payments", key="order_id"):
    order_id: str


class ParcelSent(Event, topic="parcels", key="parcel_id", name="shipping.ParcelSent"):
    parcel_id: str


payments = Service("payments")
shipping = Service("ship-ping")
mail = Service("mail")


@payments.on(OrderPlaced, OrderRetried)
async def charge(order: OrderPlaced | OrderRetried) -> PaymentCharged | PaymentDeclined | None: ...


@shipping.on(PaymentCharged)
def send_parcels(paid: PaymentCharged) -> list[ParcelSent]: ...


@mail.on(PaymentCharged)
async def thank(paid: PaymentCharged) -> None: ...


@mail.on(OrderPlaced)
async def retry(order: OrderPlaced) -> OrderRetried: ...


SERVICES = (payments, shipping, mail)


@pytest.fixture
def graph():
    return Choreography.of(SERVICES)


def view(name="OrderPlaced", topic="orders", key="order_id", base=Event, ends=None):
    """Another service's own class of an event."""
    body = {"__annotations__": {"order_id": str, "parcel_id": str}, "__module__": __name__, "__qualname__": "View"}
    return type(Event)("View", (base,), body, topic=topic, key=key, name=name, ends=ends)


def consumer(name, event):
    service = Service(name)

    @service.on(event)
    def handle(event) -> None: ...

    return service


def test_events_know_both_their_ends(graph):
    events = {event.name: event for event in graph.events}
    assert list(events) == ["OrderPlaced", "OrderRetried", "PaymentCharged", "PaymentDeclined", "shipping.ParcelSent"]
    charged = events["PaymentCharged"]
    assert charged.emitted_by == ("payments.charge",)
    assert charged.consumed_by == ("mail.thank", "ship-ping.send_parcels")
    assert (charged.topics, charged.key, charged.failure) == (("payments",), "order_id", False)
    assert events["PaymentDeclined"].failure


def test_handlers_know_causes_and_effects(graph):
    handlers = {handler.id: handler for handler in graph.handlers}
    assert list(handlers) == ["mail.thank", "mail.retry", "payments.charge", "ship-ping.send_parcels"]
    assert handlers["payments.charge"].consumes == ("OrderPlaced", "OrderRetried")
    assert handlers["payments.charge"].emits == ("PaymentCharged", "PaymentDeclined")
    assert handlers["payments.charge"].may_emit_nothing
    assert not handlers["mail.retry"].may_emit_nothing
    assert handlers["ship-ping.send_parcels"].fan_out
    assert not handlers["payments.charge"].fan_out


def test_edges_lead_from_event_to_handler_to_event(graph):
    assert set(graph.edges) == {
        Edge("consumes", "OrderPlaced", "payments.charge", ("orders",)),
        Edge("consumes", "OrderRetried", "payments.charge", ("orders",)),
        Edge("consumes", "PaymentCharged", "ship-ping.send_parcels", ("payments",)),
        Edge("consumes", "PaymentCharged", "mail.thank", ("payments",)),
        Edge("consumes", "OrderPlaced", "mail.retry", ("orders",)),
        Edge("emits", "payments.charge", "PaymentCharged", ("payments",)),
        Edge("emits", "payments.charge", "PaymentDeclined", ("payments",)),
        Edge("emits", "ship-ping.send_parcels", "shipping.ParcelSent", ("parcels",)),
        Edge("emits", "mail.retry", "OrderRetried", ("orders",)),
    }
    assert len(graph.edges) == 9


def test_entries_come_from_outside_and_outcomes_have_no_handler(graph):
    assert [event.name for event in graph.entries] == ["OrderPlaced"]
    assert [event.name for event in graph.outcomes] == ["PaymentDeclined", "shipping.ParcelSent"]


def test_topics_are_those_of_events_and_of_dead_letters(graph):
    assert graph.topics == [
        *("dlq.mail", "dlq.payments", "dlq.ship-ping", "orders", "parcels", "payments"),
        *("retry.mail", "retry.payments", "retry.ship-ping"),
    ]
    assert dead_letter_topic("mail") == "dlq.mail"


def test_the_order_of_services_does_not_matter(graph):
    texts = {
        (other.to_json(), other.to_mermaid(), other.to_text())
        for other in map(Choreography.of, itertools.permutations(SERVICES))
    }
    assert texts == {(graph.to_json(), graph.to_mermaid(), graph.to_text())}


def test_json_holds_the_whole_graph(graph):
    data = json.loads(graph.to_json())
    assert list(data) == ["version", "services", "handlers", "events", "edges", "topics", "entries", "outcomes"]
    assert data["version"] == 2
    assert data["services"] == [{"name": "mail"}, {"name": "payments"}, {"name": "ship-ping"}]
    assert data["handlers"][2] == {
        "id": "payments.charge",
        "service": "payments",
        "name": "charge",
        "kind": "on",
        "consumes": ["OrderPlaced", "OrderRetried"],
        "stopped_by": [],
        "emits": ["PaymentCharged", "PaymentDeclined"],
        "may_emit_nothing": True,
        "several": [],
        "attempts": 5,
        "ordered": True,
        "rule": None,
    }
    assert data["events"][0] == {
        "name": "OrderPlaced",
        "topics": ["orders"],
        "key": "order_id",
        "failure": False,
        "ends": None,
        "compensation": False,
        "emitted_by": [],
        "consumed_by": ["mail.retry", "payments.charge"],
        "stops": [],
    }
    assert {Edge(**(edge | {"topics": tuple(edge["topics"])})) for edge in data["edges"]} == set(graph.edges)
    assert data["outcomes"] == ["PaymentDeclined", "shipping.ParcelSent"]


def test_mermaid_draws_every_node_and_edge(graph):
    lines = graph.to_mermaid().splitlines()
    assert lines[0] == "flowchart LR"
    assert '  subgraph s_ship_2d_ping["ship-ping"]' in lines
    assert '    h_ship_2d_ping_2e_send__parcels["send_parcels"]' in lines
    assert '  e_PaymentDeclined(["PaymentDeclined"]):::failure' in lines
    assert "  h_payments_2e_charge --> e_PaymentDeclined" in lines
    declared = {match[1] for line in lines if (match := re.match(r"\s+(?:subgraph )?(\w+)[\[(]", line))}
    used = {end for line in lines if "-->" in line for end in line.split(" --> ")}
    assert {end.strip() for end in used} <= declared
    assert sum("-->" in line for line in lines) == len(graph.edges)


def test_mermaid_ids_differ_where_names_differ():
    names = ["a.b", "a_b", "a-b", "a_2e_b", "end"]
    text = Choreography.of(consumer(name, OrderPlaced) for name in names).to_mermaid()
    boxes = re.findall(r"subgraph (\w+)\[", text)
    assert len(set(boxes)) == len(names)
    assert "end" not in boxes


def test_text_shows_causes_before_effects(graph):
    text = graph.to_text()
    assert text.startswith(
        "services: 3, handlers: 4, events: 5\n\nOrderPlaced (topic orders, key order_id, from outside)\n"
    )
    assert "  payments.charge -> PaymentCharged | PaymentDeclined | nothing\n" in text
    assert "  ship-ping.send_parcels -> several of shipping.ParcelSent | nothing\n" in text
    assert "PaymentDeclined (topic payments, key order_id, failure)\n  nobody reacts" in text
    order = [
        text.index(f"\n{name} (") for name in ("OrderPlaced", "OrderRetried", "PaymentCharged", "shipping.ParcelSent")
    ]
    assert order == sorted(order)


def test_a_circle_without_entry_is_shown_too():
    service = Service("circle")

    @service.on(OrderPlaced)
    def again(order: OrderPlaced) -> OrderRetried: ...

    @service.on(OrderRetried)
    def back(order: OrderRetried) -> OrderPlaced: ...

    graph = Choreography.of([service])
    assert graph.entries == graph.outcomes == ()
    assert "\nOrderPlaced (topic orders, key order_id)\n  circle.again -> OrderRetried" in graph.to_text()


def test_no_services_make_an_empty_graph():
    graph = Choreography.of([])
    assert (graph.events, graph.handlers, graph.edges, graph.topics) == ((), (), (), [])
    assert graph.to_mermaid().startswith("flowchart LR")


def test_services_may_have_their_own_view_of_an_event():
    graph = Choreography.of([payments, consumer("audit", view(base=Failure))])
    assert len([cls for cls in graph.event_classes if cls.contract.type_name == "OrderPlaced"]) == 2
    placed = next(event for event in graph.events if event.name == "OrderPlaced")
    assert placed.consumed_by == ("audit.handle", "payments.charge")
    assert placed.failure, "one view calls it a failure"


@pytest.mark.parametrize("different", [{"topic": "other"}, {"key": "parcel_id"}])
def test_views_must_share_topic_and_key(different):
    with pytest.raises(DeclarationError) as refused:
        Choreography.of([payments, consumer("audit", view(**different))])
    message = str(refused.value)
    assert "event 'OrderPlaced' has two topics or keys" in message
    assert f"{__name__}.OrderPlaced (orders, order_id)" in message
    assert f"{__name__}.View (" in message
    assert "let both classes name one topic= and key=" in message


def test_views_must_agree_on_how_the_saga_ends():
    with pytest.raises(DeclarationError) as refused:
        Choreography.of([payments, consumer("audit", view(ends="completed"))])
    message = str(refused.value)
    assert "event 'OrderPlaced' has two outcomes" in message
    assert f"{__name__}.OrderPlaced (ends=None)" in message
    assert f"{__name__}.View (ends='completed')" in message
    assert "let both classes say the same ends=" in message


class OrderDone(Event, topic="orders", key="order_id", ends="completed"):
    order_id: str


class PaymentRefunded(Event, topic="payments", key="order_id"):
    order_id: str


def saga():
    """A service with a handler of each kind."""
    service = Service("saga")

    @service.on(OrderPlaced)
    async def charge(order: OrderPlaced) -> PaymentCharged: ...

    @service.compensates(charge, on=(PaymentDeclined,))
    async def refund(charged: PaymentCharged, failure: PaymentDeclined) -> PaymentRefunded: ...

    @service.join(OrderPlaced, PaymentCharged, by="order_id", unless=(PaymentDeclined,))
    async def finish(order: OrderPlaced, paid: PaymentCharged) -> OrderDone: ...

    @service.join(OrderPlaced, ParcelSent, count=lambda order: 3)
    async def gather(order: OrderPlaced, parcels: list[ParcelSent]) -> None: ...

    @service.deadline(OrderPlaced, within="15m", every="1h", times=3, unless=(OrderDone,))
    async def remind(order: OrderPlaced) -> PaymentDeclined | None: ...

    return service


def lake():
    service = Service("lake")

    @service.batch(OrderPlaced, max_size=50, max_age="2s")
    async def load(orders: list[OrderPlaced]) -> None: ...

    return service


def test_rules_are_plain_data():
    handlers = {handler.name: handler for handler in Choreography.of([saga(), lake()]).handlers}
    assert {name: (handler.kind, handler.rule) for name, handler in handlers.items()} == {
        "charge": ("on", None),
        "refund": ("compensation", Undoing("saga.charge", ("PaymentCharged",))),
        "finish": ("join", Joining("order_id", 2, None, None)),
        "gather": ("join", Joining(None, 2, "shipping.ParcelSent", None)),
        "remind": ("deadline", Timing(900.0, 3600.0, 3, 0.5)),
        "load": ("batch", Batching(50, 2.0, "partition")),
    }
    assert handlers["finish"].consumes == ("OrderPlaced", "PaymentCharged")
    assert handlers["finish"].stopped_by == ("PaymentDeclined",)
    assert handlers["refund"].consumes == ("PaymentDeclined",)
    assert (handlers["remind"].consumes, handlers["remind"].stopped_by) == (("OrderPlaced",), ("OrderDone",))


def test_what_stops_a_handler_is_an_edge_of_its_own():
    graph = Choreography.of([saga()])
    stops = [edge for edge in graph.edges if edge.kind == "stops"]
    assert stops == [
        Edge("stops", "PaymentDeclined", "saga.finish", ("payments",)),
        Edge("stops", "OrderDone", "saga.remind", ("orders",)),
    ]
    assert [(edge.event, edge.handler) for edge in stops] == [(edge.source, edge.target) for edge in stops]
    done = graph.graph.event["OrderDone"]
    assert (done.consumed_by, done.stops, done.ends) == ((), ("saga.remind",), "completed")


def test_events_know_what_only_compensations_emit():
    events = Choreography.of([saga()]).events
    assert [event.name for event in events if event.compensation] == ["PaymentRefunded"]


def test_what_only_stops_or_compensates_comes_from_nowhere():
    service = Service("waiting")

    @service.on(OrderPlaced)
    async def charge(order: OrderPlaced) -> PaymentCharged: ...

    @service.compensates(charge, on=(PaymentDeclined,))
    async def refund(charged: PaymentCharged, failure: PaymentDeclined) -> None: ...

    @service.deadline(PaymentCharged, within="1h", unless=(OrderDone,))
    async def expire(paid: PaymentCharged) -> None: ...

    graph = Choreography.of([service])
    assert [event.name for event in graph.entries] == ["OrderPlaced"]
    assert [event.name for event in graph.outcomes] == []


class FileArrived(
    Event,
    topic=route(lambda file: "files.large" if file.size > 9 else "files", among=("files", "files.large")),
    key="tenant",
):
    tenant: str
    size: int


class LargeFile(FileArrived, topic="files.large", key="tenant", name="FileArrived"):
    pass


class SmallFile(FileArrived, topic="files", key="tenant", name="FileArrived"):
    pass


def test_a_routed_event_shows_its_topics_and_who_reads_only_some_of_them():
    graph = Choreography.of([consumer("all", FileArrived), consumer("large", LargeFile)])
    assert [(event.name, event.topics) for event in graph.events] == [("FileArrived", ("files", "files.large"))]
    assert {edge.target: edge.topics for edge in graph.edges} == {
        "all.handle": ("files", "files.large"),
        "large.handle": ("files.large",),
    }
    assert {"files", "files.large"} < set(graph.topics)
    assert (
        "FileArrived (topic files or files.large, key tenant, from outside)\n"
        "  all.handle -> nothing\n"
        "  large.handle -> nothing (only from files.large)"
    ) in graph.to_text()
    assert '-->|"files.large"| h_large' in graph.to_mermaid()
    assert "--> h_all" in graph.to_mermaid()


def test_views_of_a_routed_event_are_known_as_such_without_it():
    graph = Choreography.of([consumer("small", SmallFile), consumer("large", LargeFile)])
    assert graph.events[0].topics == ("files", "files.large")


def test_who_reads_one_topic_of_a_routed_event_needs_no_other():
    graph = Choreography.of([consumer("large", LargeFile)])
    assert graph.topics == ["dlq.large", "files.large", "retry.large"]
    assert graph.events[0].topics == ("files", "files.large")


def test_a_view_of_a_topic_that_is_not_routed_to_is_refused():
    class Stray(FileArrived, topic="strays", key="tenant", name="FileArrived"):
        pass

    with pytest.raises(
        DeclarationError, match=r"FileArrived \(files or files.large, tenant\) and .*Stray \(strays, tenant\)"
    ):
        Choreography.of([consumer("all", FileArrived), consumer("strays", Stray)])


def test_two_services_of_one_name_are_refused():
    with pytest.raises(DeclarationError, match=r"two services have the name 'mail': .*consumer group.*\(rename one"):
        Choreography.of([mail, payments, Service("mail")])

from datetime import date
from decimal import Decimal
from typing import Annotated, Generic, Literal, NewType, Optional, TypeVar
from uuid import UUID

import pydantic
import pytest

from choreo import DeclarationError, Event, Failure
from choreo.events import Contract, is_event_class, key_of

Sku = NewType("Sku", str)
T = TypeVar("T")


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    total: Decimal = Decimal(0)


class PaymentDeclined(Failure, topic="payments", key="order_id", name="shop.PaymentDeclined"):
    order_id: str


class Base(Event):
    order_id: str


class FromBase(Base, topic="orders", key="order_id"):
    note: str = ""


class Line(pydantic.BaseModel):
    sku: str = ""


def declare(annotation, default=..., *, key="order_id", field="order_id", **arguments):
    """A class statement with one more field, so that each case is one line."""
    body = {"__annotations__": {"order_id": str, field: annotation}, "__module__": __name__}
    if default is not ...:
        body[field] = default
    return type(Event)("Broken", (Event,), body, topic="orders", key=key, **arguments)


def test_a_class_names_its_contract():
    assert OrderPlaced.contract == Contract("OrderPlaced", ("orders",), "order_id", failure=False)
    assert PaymentDeclined.contract == Contract("shop.PaymentDeclined", ("payments",), "order_id", failure=True)
    assert FromBase.contract.type_name == "FromBase"


def test_only_classes_with_topic_and_key_are_events():
    assert is_event_class(OrderPlaced)
    assert is_event_class(FromBase)
    assert not any(is_event_class(other) for other in (Event, Failure, Base, pydantic.BaseModel, 1))
    assert not is_event_class(OrderPlaced(order_id="o1"))


def test_events_are_frozen_and_compare_by_value():
    event = OrderPlaced(order_id="o1")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        event.order_id = "o2"
    assert event == OrderPlaced(order_id="o1")
    assert hash(event) == hash(OrderPlaced(order_id="o1"))


def test_unknown_fields_and_infinities_are_refused():
    class Measured(Event, topic="t", key="k"):
        k: str
        value: float

    with pytest.raises(pydantic.ValidationError, match="extra"):
        OrderPlaced(order_id="o1", totl=1)
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Measured(k="k", value=float("nan"))


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (str, "grün", "grün".encode()),
        (int, 7, b"7"),
        (UUID, UUID(int=5), b"00000000-0000-0000-0000-000000000005"),
        (Sku, Sku("s1"), b"s1"),
        (Annotated[str, pydantic.Field(min_length=1)], "a", b"a"),
        (Literal["eu", "us"], "eu", b"eu"),
    ],
)
def test_the_key_is_utf_8_text(annotation, value, expected):
    event = declare(annotation, field="k", key="k")
    assert key_of(event(order_id="o1", k=value)) == expected


@pytest.mark.parametrize("annotation", [list[str], Decimal, float, date, bytes, Line, tuple[str, str]])
def test_a_key_that_has_no_single_text_is_refused(annotation):
    with pytest.raises(
        DeclarationError, match=r"Broken has the key field 'k' of type .*use a field of type str, int or"
    ):
        declare(annotation, field="k", key="k")


def test_a_key_that_is_no_field_is_refused_and_the_fields_are_named():
    with pytest.raises(DeclarationError, match=r"event Broken names key='order', but has no such field.*order_id"):
        declare(str, key="order")


@pytest.mark.parametrize("annotation", [Optional[str], str | None, Annotated[str | None, "x"], None])  # noqa: UP045 both spellings
def test_an_optional_key_is_refused(annotation):
    with pytest.raises(DeclarationError, match=r"Broken has the optional key field 'k'.*make the field required"):
        declare(annotation, field="k", key="k")


def test_a_key_with_a_default_is_refused():
    with pytest.raises(DeclarationError, match=r"Broken has the optional key field 'k'.*make the field required"):
        declare(str, "none", field="k", key="k")


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (list[str], []),
        (dict[str, str], {}),
        (set[str], pydantic.Field(default=set())),
        (list[str], pydantic.Field(default=[])),
        (Annotated[list[str], pydantic.Field(default=[])], ...),
        (tuple[list[str], ...], ([],)),
        (Line, Line()),
    ],
)
def test_a_mutable_default_is_refused(annotation, default):
    with pytest.raises(DeclarationError, match=r"Broken has a mutable default for field 'items'.*default_factory"):
        declare(annotation, default, field="items")


@pytest.mark.parametrize("default", [(), ("a",), pydantic.Field(default_factory=list), None, Decimal(1)])
def test_immutable_defaults_and_factories_are_fine(default):
    assert "items" in declare(object, default, field="items").model_fields


@pytest.mark.parametrize("topic", ["", "no spaces", "a" * 250, ".", "..", "ö"])
def test_an_illegal_topic_is_refused(topic):
    with pytest.raises(DeclarationError, match=r"event .*Wrong names topic .*no legal Kafka topic \(use 1 to 249"):

        class Wrong(Event, topic=topic, key="k"):
            k: str


@pytest.mark.parametrize("name", ["1st", "a-b", "a..b", "a.", "ä"])
def test_an_illegal_type_name_is_refused(name):
    with pytest.raises(DeclarationError, match=r"event Broken has the type name .*no legal Avro name \(use letters"):
        declare(str, name=name)


@pytest.mark.parametrize(("arguments", "missing"), [({"topic": "t"}, "key"), ({"key": "k"}, "topic")])
def test_topic_and_key_come_together(arguments, missing):
    with pytest.raises(DeclarationError, match=rf"event .*Half names no {missing} \(an event names both"):

        class Half(Event, **arguments):
            k: str


def test_an_event_is_not_inherited_in_silence():
    with pytest.raises(DeclarationError, match=r"event .*Heir inherits .* \(name its own: class Heir\(\.\.\., topic="):

        class Heir(OrderPlaced):
            pass


def test_a_field_may_not_hide_the_contract():
    with pytest.raises(DeclarationError, match=r"event Broken has a field 'contract'.*rename the field"):
        declare(str, field="contract")


def test_a_base_may_be_generic():
    class Envelope(Event, Generic[T]):
        k: str
        content: T

    class Numbered(Envelope[int], topic="t", key="k"):
        pass

    assert Numbered(k="a", content=1).content == 1
    with pytest.raises(pydantic.ValidationError, match="integer"):
        Numbered(k="a", content="one")


def test_an_unknown_class_argument_is_refused():
    with pytest.raises(DeclarationError, match=r"event .*Wrong has an unknown class argument: topics \(an event names"):

        class Wrong(Event, topics="orders", key="k"):
            k: str


def test_pydantic_settings_are_still_class_arguments():
    class Renamed(Event, topic="orders", key="k", title="A title"):
        k: str

    assert Renamed.model_config["title"] == "A title"
    assert Renamed.model_config["frozen"]

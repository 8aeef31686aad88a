from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from choreo.errors import EncodeError
from choreo.events import Event
from choreo.wire import Codec
from tests.unit.wire.samples import (
    LINE,
    META,
    ORDER,
    Card,
    Cash,
    Colour,
    Everything,
    Line,
    MemoryRegistry,
    Order,
    Size,
    codec_for,
    rewritten,
    stored,
)

UTC_TIMES = st.datetimes(timezones=st.timezones()).filter(
    lambda at: dt.datetime(2, 1, 1, tzinfo=dt.UTC) < at < dt.datetime(9998, 1, 1, tzinfo=dt.UTC)
)
AMOUNTS = st.decimals(min_value=-(10**28), max_value=10**28, places=9, allow_nan=False)
PRICES = st.decimals(min_value=-(10**9), max_value=10**9, places=2, allow_nan=False)
LONGS = st.integers(-(2**63), 2**63 - 1)
LINES = st.builds(Line, sku=st.text(), quantity=LONGS, price=PRICES, colour=st.sampled_from(Colour))
PAYMENTS = st.builds(Card, number=st.text()) | st.builds(Cash, number=st.text())
EVENTS = st.builds(
    Everything,
    text=st.text(),
    number=LONGS,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    octets=st.binary(),
    amount=AMOUNTS,
    price=PRICES,
    at=UTC_TIMES,
    day=st.dates(),
    clock=st.times(),
    uid=st.uuids(),
    span=st.timedeltas(min_value=dt.timedelta(days=-(10**8)), max_value=dt.timedelta(days=10**8)),
    colour=st.sampled_from(Colour),
    size=st.sampled_from(Size),
    kind=st.sampled_from(["web", "shop"]),
    line=LINES,
    lines=st.lists(LINES, max_size=3),
    words=st.lists(st.text(), max_size=3).map(tuple),
    marks=st.sets(st.text(), max_size=3),
    numbers=st.dictionaries(st.text(), LONGS, max_size=3),
    carts=st.dictionaries(st.text(), st.lists(LINES, max_size=2), max_size=2),
    payment=PAYMENTS,
    payments=st.lists(PAYMENTS | st.none(), max_size=3),
    mixed=LONGS | st.text() | st.booleans() | st.lists(st.text(), max_size=2) | st.none(),
    maybe_text=st.none() | st.text(),
    maybe_amount=st.none() | AMOUNTS,
    maybe_at=st.none() | UTC_TIMES,
    maybe_words=st.none() | st.lists(st.text(), max_size=2).map(tuple),
    maybe_line=st.none() | LINES,
    maybe_colour=st.none() | st.sampled_from(Colour),
    maybe_map=st.none() | st.dictionaries(st.text() | st.just("-type"), st.text(), max_size=2),
)
CODEC = asyncio.run(codec_for(Everything, Order))


def types_in(event: Event) -> dict[str, type]:
    return {name: type(value) for name, value in event.__dict__.items()}


@given(EVENTS)
@settings(max_examples=150)
def test_every_event_survives_the_wire(event):
    back = CODEC.decode(stored(CODEC.encode(event, META)), Everything)
    # Python calls times in a clock change unequal to everything in another zone, so both sides are made UTC.
    instants = {name: getattr(event, name) for name in ("at", "maybe_at")}
    assert back == event.model_copy(update={name: at and at.astimezone(dt.UTC) for name, at in instants.items()})
    assert types_in(back) == types_in(event)
    assert [type(one) for one in back.payments] == [type(one) for one in event.payments]
    assert type(back.mixed) is type(event.mixed)


@given(EVENTS)
@settings(max_examples=30)
def test_an_event_gives_the_same_bytes_each_time(event):
    again = event.model_copy(update={"marks": {*reversed(list(event.marks))}})
    assert CODEC.encode(event, META) == CODEC.encode(again, META)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 1.5}, "field number: Input should be a valid integer"),
        ({"number": True}, "field number: Input should be a valid integer"),
        ({"number": 2**63}, "field number: Input should be less than or equal to 9223372036854775807"),
        (
            {"numbers": {"a": -(2**63) - 1}},
            "field numbers.a: Input should be greater than or equal to -9223372036854775808",
        ),
        ({"ratio": 1}, "field ratio: Input should be an instance of float"),
        ({"flag": None}, "field flag: Input should be a valid boolean"),
        ({"flag": "False"}, "field flag: Input should be a valid boolean"),
        ({"text": b"x"}, "field text: Input should be a valid string"),
        ({"text": "\ud800"}, "UnicodeEncodeError"),
        ({"octets": "x"}, "field octets: Input should be a valid bytes"),
        ({"words": "ab"}, "field words: Input should be an instance of tuple"),
        ({"words": ("a", 1)}, "field words.1: Input should be a valid string"),
        ({"marks": ["a"]}, "field marks: Input should be an instance of set"),
        ({"numbers": {1: 1}}, r"field numbers.1.\[key\]: Input should be a valid string"),
        ({"at": dt.datetime(2020, 1, 1)}, "field at: Input should have timezone info"),  # noqa: DTZ001
        ({"maybe_at": dt.datetime(2020, 1, 1)}, "field maybe_at: Input should have timezone info"),  # noqa: DTZ001
        ({"at": dt.date(2020, 1, 1)}, "field at: Input should be a valid datetime"),
        ({"day": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "field day: Input should be a valid date"),
        ({"clock": dt.time(1, tzinfo=dt.UTC)}, "field clock: Input should not have timezone info"),
        ({"amount": Decimal("0.1234567891")}, r"field amount: .* has more digits than decimal\(38, 9\) holds"),
        ({"amount": Decimal("1E+29")}, "field amount: .* has more digits"),
        ({"amount": Decimal("NaN")}, "field amount: .* is no number"),
        ({"price": Decimal("1.234")}, r"field price: .* has more digits than decimal\(12, 2\)"),
        ({"amount": 1.0}, "field amount: .* is no Decimal"),
        ({"colour": "RED"}, "field colour: Input should be an instance of Colour"),
        ({"kind": "other"}, "field kind: Input should be 'web' or 'shop'"),
        (
            {"payment": LINE},
            "field payment.Card: .*Line is not Card alone.*; field payment.Cash: .*Line is not Cash alone",
        ),
        ({"mixed": 1.5}, "field mixed.long: Input should be a valid integer; field mixed.string"),
        ({"maybe_text": 5}, "field maybe_text: Input should be a valid string"),
        ({"unknown": 1}, "field unknown: Extra inputs are not permitted"),
        (
            {"lines": [LINE.model_copy(update={"quantity": None})]},
            "field lines.0.quantity: Input should be a valid integer",
        ),
        ({"carts": {"a": [LINE.model_copy(update={"sku": 1})]}}, "field carts.a.0.sku: Input should be a valid string"),
        ({"span": dt.timedelta.max}, "OverflowError"),
    ],
)
def test_nothing_is_lost_in_silence(change: dict[str, Any], message: str):
    event = EVERYTHING.model_copy(update=change)
    with pytest.raises(EncodeError, match=f"event Everything cannot be written: .*{message}"):
        CODEC.encode(event, META)


def test_a_subclass_of_a_nested_model_is_refused_for_its_fields_would_be_lost():
    class LongLine(Line):
        note: str = ""

    event = ORDER.model_copy(update={"lines": [LongLine(**LINE.model_dump())]})
    with pytest.raises(EncodeError, match=r"field lines\.0: .*LongLine is not Line"):
        CODEC.encode(event, META)


async def test_fields_that_a_model_allows_without_declaring_them_are_refused_for_they_would_be_lost():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        text: str

    class Sent(Event, topic="t", key="id"):
        id: str
        part: Open

    codec = await codec_for(Sent)
    assert codec.encode(Sent(id="1", part=Open(text="a")), META)
    with pytest.raises(EncodeError, match=r"field part: .*other fields would be lost"):
        codec.encode(Sent(id="1", part=Open(text="a", more=1)), META)


def test_a_missing_field_is_refused():
    with pytest.raises(EncodeError, match="field total: Field required"):
        CODEC.encode(Order.model_construct(order_id="o1", lines=[]), META)


def test_trailing_zeros_and_exponents_are_no_digits_too_many():
    event = ORDER.model_copy(update={"total": Decimal("1.500000")})
    assert CODEC.decode(stored(CODEC.encode(event, META)), Order).total == Decimal("1.5")
    event = ORDER.model_copy(update={"total": Decimal("1E+3")})
    assert CODEC.decode(stored(CODEC.encode(event, META)), Order).total == 1000


async def test_an_event_class_must_be_prepared_before_it_is_written():
    with pytest.raises(EncodeError, match=r"event Order is not prepared .await Codec.prepare\(writes=\[Order\]"):
        Codec(MemoryRegistry()).encode(ORDER, META)


async def test_preparing_again_asks_the_registry_for_new_classes_only():
    registry = MemoryRegistry()
    codec = Codec(registry)
    await codec.prepare(writes=[Order], reads=[])
    await codec.prepare(writes=[Order], reads=[Order])
    assert registry.asked == 1


async def test_alike_models_of_a_union_are_told_apart_even_when_only_the_reader_has_the_union():
    class PaidByCash(Event, topic="payments", key="id", name="Paid"):
        id: str
        how: Cash

    class Paid(Event, topic="payments", key="id"):
        id: str
        how: Card | Cash

    assert (await rewritten(PaidByCash(id="1", how=Cash(number="5")), Paid)).how == Cash(number="5")


@pytest.mark.parametrize("value", [2**60 + 1, 1.5, dt.date(2026, 1, 2)])
async def test_numbers_of_a_union_keep_their_types_even_where_the_reader_has_another_schema(value):
    class Measured(Event, topic="t", key="id"):
        id: str
        value: float | int | dt.date

    class Reads(Event, topic="t", key="id", name="Measured"):
        id: str
        value: float | int | dt.date
        note: str = ""

    back = await rewritten(Measured(id="1", value=value), Reads)
    assert (back.value, type(back.value)) == (value, type(value))


async def test_strict_classes_can_be_read():
    class Strict(Event, topic="t", key="id"):
        model_config = ConfigDict(strict=True)
        id: str
        words: tuple[str, ...]
        size: Size

    event = Strict(id="1", words=("a",), size=Size.LARGE)
    assert await rewritten(event, Strict) == event


def sample() -> Everything:
    return Everything(
        text="é",
        number=1,
        ratio=0.5,
        flag=True,
        octets=b"\x00",
        amount=Decimal("1.5"),
        price=Decimal("2.50"),
        at=dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        day=dt.date(2026, 1, 2),
        clock=dt.time(1, 2, 3, 4),
        uid="00000000-0000-0000-0000-000000000001",
        span=dt.timedelta(microseconds=-1),
        colour=Colour.DEEP_BLUE,
        size=Size.LARGE,
        kind="web",
        line=LINE,
        lines=[LINE],
        words=("a", "b"),
        marks={"m"},
        numbers={"a": 1},
        carts={"a": [LINE]},
        payment=Cash(number="1"),
        payments=[Card(), None],
        mixed=True,
        maybe_text=None,
        maybe_amount=None,
        maybe_at=None,
        maybe_words=("string", "x"),
        maybe_line=None,
        maybe_colour=None,
        maybe_map={"-type": "string"},
    )


EVERYTHING = sample()

"""The filter language: text to data and back, what it means, and what it says about what it cannot read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.errors import FilterError
from choreo.saga.filter_text import parse, quoted, text
from choreo.saga.filters import EVERY, FIELDS, OPS, Ago, And, Compare, Filter, Has, Not, Or, at_moment, matches

EXAMPLE = (
    'state = stuck and type = OrderPlaced and started > -2h and (service = payments or error contains "timeout") '
    "and not has dead_letters and duration > 5s and key = o-17"
)


def test_the_example():
    assert parse(EXAMPLE) == And((
        Compare("state", "=", "stuck"),
        Compare("type", "=", "OrderPlaced"),
        Compare("started", ">", Ago(7_200_000)),
        Or((Compare("service", "=", "payments"), Compare("error", "contains", "timeout"))),
        Not(Has("dead_letters")),
        Compare("duration", ">", 5000),
        Compare("key", "=", "o-17"),
    ))  # fmt: skip


def test_and_binds_before_or_and_not_before_and():
    a, b, c = (Compare("key", "=", name) for name in "abc")
    assert parse("key = a or not key = b and key = c") == Or((a, And((Not(b), c))))
    assert parse("(key = a or key = b) and key = c") == And((Or((a, b)), c))


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("started > 1970-01-02", 86_400_000),
        ("started > 1970-01-01T00:00:01Z", 1000),
        ("started > 1970-01-01T01:00:01.5+01:00", 1500),
        ("started > now", Ago(0)),
        ("started > -90s", Ago(90_000)),
        ("duration < 250ms", 250),
        ("events >= 40", 40),
        ("data.total > -1.5", -1.5),
        ("data.total = 1.50", "1.50"),
        ("key = 'it\\'s \\\\'", "it's \\"),
        ("KEY".lower() + ' = "and"', "and"),
    ],
)
def test_values(said, value):
    found = parse(said)
    assert isinstance(found, Compare)
    assert found.value == value


@pytest.mark.parametrize(
    ("said", "at", "words"),
    [
        ("stat = stuck", 0, "did you mean state"),
        ("state = stuk", 8, "stuck, compensating"),
        ("state = stuck key = 1", 14, "expected `and`, `or` or the end"),
        ("(state = stuck", 14, "the `(` at character 1"),
        ("key = ", 5, "expected a value"),
        ("key = and", 6, "quotes"),
        ("key", 3, "expected a comparison"),
        ("key < a", 4, "it has =, !=, contains"),
        ("started = now", 8, "it has <, <=, >, >="),
        ("started > yesterday", 10, "write -2h"),
        ("started > -2", 10, "write -2h"),
        ("duration > 5", 11, "write 250ms"),
        ("events > 1e3", 9, "whole number"),
        ("data.x > many", 9, "whole number"),
        ("data.x-y = 1", 0, "payload field"),
        ("key = 'a", 6, "closing quote"),
        ("key ! a", 4, "write !="),
        ("and", 0, "expected a field"),
        ("not", 3, "expected a field"),
        ("key = a)", 7, "expected `and`"),
        ("key 'contains' a", 4, "expected a comparison"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(said, at, words):
    with pytest.raises(FilterError, match=re.escape(words)) as caught:
        parse(said)
    assert caught.value.at == at
    assert f"character {at + 1}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_declared_payload_fields_can_be_named_where_they_are_known():
    assert parse("data.order_id = 1", searchable={"order_id"}) == Compare("data.order_id", "=", "1")
    with pytest.raises(FilterError, match=r"these are: data\.order_id"):
        parse("data.total = 1", searchable={"order_id"})
    with pytest.raises(FilterError, match="there are none"):
        parse("data.total = 1", searchable=())


@pytest.mark.parametrize(
    "said", ["(" * 50 + "key = a" + ")" * 50, "not " * 50 + "key = a", " or ".join(["key = a"] * 101), "x" * 5000]
)
def test_what_is_too_much_is_refused(said):
    with pytest.raises(FilterError, match="more than"):
        parse(said)


def values(name: str, op: str) -> st.SearchStrategy[object]:
    field = FIELDS.get(name)
    if field is None:
        number = st.integers(-(10**15) + 1, 10**15 - 1).map(lambda thousandths: thousandths / 1000)
        return number if op in {"<", "<=", ">", ">="} else st.text()
    match field.kind:
        case "choice":
            return st.sampled_from(field.choices)
        case "time":
            return st.integers(0, 253_402_300_799_999) | st.builds(Ago, st.integers(0, 10**13))
        case "text":
            return st.text()
    return st.integers(0, 10**15 - 1)


@st.composite
def comparisons(draw):
    name = draw(st.sampled_from([*FIELDS, "data.order_id", "data.a.b_1"]))
    op = draw(st.sampled_from(OPS[FIELDS[name].kind if name in FIELDS else "data"]))
    return Compare(name, op, draw(values(name, op)))


def both(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, min_size=2, max_size=4).map(tuple)
    return several.map(And) | several.map(Or) | parts.map(Not)


FILTERS = st.recursive(comparisons() | st.sampled_from(sorted(FIELDS)).map(Has), both, max_leaves=12)


@given(FILTERS)
def test_text_reads_as_the_same_filter(asked):
    assert parse(text(asked)) == asked
    assert text(parse(text(asked))) == text(asked)


def test_an_empty_text_fits_every_saga():
    assert parse(" \n") == EVERY
    assert text(EVERY) == ""
    assert matches(EVERY, {})


PIECES = st.lists(
    st.sampled_from([*FIELDS, "data.x", "(", ")", "and", "or", "not", "has", "=", "<", "'", '"', "\\", "-2h", "5"])
)


@given(st.text() | PIECES.map(" ".join) | PIECES.map("".join))
def test_no_text_makes_it_raise_anything_else(said):
    place, found = 0, EVERY
    try:
        found = parse(said)
    except FilterError as error:
        place = error.at
    assert 0 <= place <= len(said)
    assert parse(text(found)) == found


@given(st.text())
def test_quoted_is_a_value(value):
    assert parse(f"key = {quoted(value)}") == Compare("key", "=", value)


ROW = {
    "state": "stuck",
    "type": "OrderPlaced",
    "key": "o-17",
    "service": ("payments", "orders"),
    "error": "TimeoutError: Gateway \u00c4",
    "started": 9_000,
    "duration": 5_001,
    "dead_letters": 0,
    "events": 3,
    "handler": (),
    "data": {"total": "99.50", "order_id": "o 17"},
}


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("state = stuck", True),
        ("state != stuck", False),
        ("service = orders", True),
        ("service != orders", False),
        ("service != shipping", True),
        ("service contains PAY", True),
        ("error contains gateway", True),
        ("error contains \u00e4", False),
        ("error contains ''", True),
        ("parent contains ''", False),
        ("parent = x", False),
        ("parent != x", True),
        ("not ended > now", True),
        ("has ended", False),
        ("exists started", True),
        ("has dead_letters", False),
        ("has events", True),
        ("has handler", False),
        ("has data.total", True),
        ("started > -2s", True),
        ("started > -1s", False),
        ("duration > 5s", True),
        ("events = 3 and events != 4 and events <= 3", True),
        ("data.total > 99", True),
        ("data.total = 99.5", False),
        ("data.order_id > 1", False),
        ('data.order_id = "o 17"', True),
        ("key = a or key = o-17", True),
    ],
)
def test_meaning(said, fits):
    assert matches(at_moment(parse(said), 10_000), ROW) is fits

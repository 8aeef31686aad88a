"""Sagas for other programs: what is written is what the format allows, whatever records say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import jsonschema
import pytest

from choreo.errors import ConfigurationError
from choreo.saga.export import FORMATS, export
from choreo.saga.export.mermaid import safe
from choreo.saga.export.svg import MOST
from tests.unit.saga.sagas import COMPENSATED, COMPLETED, DEAD, EVIL, GRAPH, HOSTILE, deep

ALL = [COMPLETED, COMPENSATED, DEAD, EVIL, deep(30)]


def test_json_has_every_attribute():
    (one,) = json.loads(export([COMPENSATED], GRAPH, "json"))
    assert one["state"] == "compensated"
    assert one["events"][1]["places"] == [{"topic": "charged", "partition": 0, "offset": 12}]
    assert one["ledger"][0]["undone_by"] == ["e6"]
    assert [json.loads(line)["key"] for line in export([COMPLETED, EVIL], GRAPH, "ndjson").splitlines()] == [
        "o-1",
        HOSTILE,
    ]


def test_what_shows_one_saga_says_so():
    with pytest.raises(ConfigurationError, match="mermaid shows one saga, and these are 2"):
        export([COMPLETED, DEAD], GRAPH, "mermaid")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("one", ALL, ids=range(len(ALL)))
def test_every_saga_can_be_written(one, to):
    written = export([one], GRAPH, to)
    assert written.endswith("\n")
    assert "\x1b" not in written
    written.encode()


def test_mermaid_sequence():
    assert export([COMPENSATED], GRAPH, "mermaid") == (
        "sequenceDiagram\n"
        "  participant p0 as web\n  participant p1 as mail\n  participant p2 as pay\n"
        "  participant p3 as stock\n  participant p4 as ship\n"
        "  p0->>p1: Placed +0 ms\n  p0->>p2: Placed +0 ms\n  p0->>p3: Placed +0 ms\n"
        "  p2->>p4: Charged +12 ms\n"
        "  p3--xp2: SoldOut, ends it#58; failed +20 ms\n"
        "  Note over p2: Refunded, undoes Charged +55 ms\n"
    )


LABEL = r"(?:[\w .,_/+…]|#\d+;)+"
STATEMENTS = {
    "mermaid": rf"sequenceDiagram|  participant p\d+ as {LABEL}|  p\d+(->>|--x)p\d+: {LABEL}|  Note over p\d+: {LABEL}",
    "mermaid-flow": rf'flowchart TD|  e\d+\(\["{LABEL}"\]\)(:::[a-z]+)?|  e\d+ -->\|"{LABEL}"\| e\d+|  e\d+ -\.->? e\d+|  classDef [a-z]+ [\w#:,\- ]+',
}


@pytest.mark.parametrize("to", STATEMENTS)
@pytest.mark.parametrize("one", ALL, ids=range(len(ALL)))
def test_no_text_becomes_a_statement_of_mermaid(one, to):
    for line in export([one], GRAPH, to).splitlines():
        assert re.fullmatch(STATEMENTS[to], line.replace(" -.- ", " -.- ")), line


def test_words_that_mermaid_takes_for_its_own():
    assert safe("end") == "#101;nd"
    assert safe("") == "#8203;"
    assert safe('"]; click') == "#34;#93;#59; click"
    assert safe("\n") == "#92;x0a"


TEXT, TIME = {"type": "string"}, {"type": "string", "format": "date-time"}


def many(required: str, **fields: object) -> dict:
    return {"type": "array", "items": {"type": "object", "properties": fields, "required": required.split()}}


DECLARED = many("name attributes", name=TEXT, attributes=many("name type", name=TEXT, type=TEXT))
RELATED = many("objectId qualifier", objectId=TEXT, qualifier=TEXT)
OCEL = {  # what the standard's own schema (ocel20-schema-json.json) asks for
    "type": "object",
    "required": ["eventTypes", "objectTypes", "events", "objects"],
    "properties": {
        "eventTypes": DECLARED,
        "objectTypes": DECLARED,
        "events": many(
            "id type time", id=TEXT, type=TEXT, time=TIME,
            attributes=many("name value", name=TEXT, value=TEXT), relationships=RELATED,
        ),
        "objects": many(
            "id type", id=TEXT, type=TEXT,
            attributes=many("name value time", name=TEXT, value=TEXT, time=TIME), relationships=RELATED,
        ),
    },
}  # fmt: skip


def test_ocel_is_what_the_standard_asks_for():
    log = json.loads(export(ALL, GRAPH, "ocel"))
    jsonschema.validate(log, OCEL, format_checker=jsonschema.FormatChecker())
    objects = {one["id"] for one in log["objects"]}
    types = {kind: {one["name"]: one["attributes"] for one in log[f"{kind}Types"]} for kind in ("event", "object")}
    assert len(objects) == len(log["objects"])
    for kind, found in (("event", log["events"]), ("object", log["objects"])):
        for one in found:
            declared = {attribute["name"] for attribute in types[kind][one["type"]]}
            assert {attribute["name"] for attribute in one["attributes"]} <= declared
            assert {related["objectId"] for related in one["relationships"]} <= objects
    ids = {event.id for saga in ALL for event in saga.events}
    assert {event["id"] for event in log["events"]} == ids


class Elements(HTMLParser):
    """All elements of a page, with their attributes, and that each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("one", ALL, ids=range(len(ALL)))
def test_html_needs_nothing_and_runs_nothing(one):
    page = Elements(export([one], GRAPH, "html"))
    assert page.open == []
    tags = {tag for tag, _ in page.seen}
    assert not tags & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "a",
        "use",
        "image",
        "foreignobject",
    }
    for _, attributes in page.seen:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "href", "xlink:href"}]
    assert {"svg", "table"} <= tags
    policy = next(attributes for _, attributes in page.seen if attributes.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_html_says_what_records_say_as_text():
    text = "".join(Elements(export([EVIL], GRAPH, "html")).texts)
    assert "<script>alert('1')</script>" in text
    assert "\\x1b[31mred" in text
    assert "\u202e" not in text


def test_html_of_a_large_saga_says_that_the_drawing_is_cut():
    assert f"(the first {MOST} events)" in export([deep(MOST + 1)], GRAPH, "html")

"""The HTTP registry and the codec against a real registry with the Confluent API."""

from __future__ import annotations

from uuid import uuid4

import pytest
from pydantic import Field

from choreo.errors import SchemaNotCachedError, SchemaNotFoundError
from choreo.events import Event, Metadata
from choreo.log.port import Record
from choreo.wire import Codec, open_registry
from choreo.wire.avro import identity
from choreo.wire.schema import schema_of

pytestmark = pytest.mark.registry

META = Metadata("e1", "Placed", "shop", "2026-02-03T04:05:06Z", "c1")


def order_classes(topic: str) -> tuple[type[Event], type[Event]]:
    """Two versions of one event, on a topic that no other test has."""

    class OldPlaced(Event, topic=topic, key="order_id", name="Placed"):
        order_id: str
        tags: list[str] = Field(default_factory=list)

    class NewPlaced(OldPlaced, topic=topic, key="order_id", name="Placed"):
        note: str | None = None

    return OldPlaced, NewPlaced


@pytest.fixture
async def registry(registry_url):
    registry = open_registry(registry_url)
    yield registry
    await registry.aclose()


@pytest.fixture
def topic() -> str:
    return f"my-orders-{uuid4().hex}"


async def test_versions_are_registered_once_and_in_order(registry, registry_url, topic):
    old, new = order_classes(topic)
    subject = f"{topic}-Placed"
    assert await registry.versions(subject) == []
    first = await registry.register(subject, schema_of(old))
    second = await registry.register(subject, schema_of(new))
    assert first != second
    assert await registry.register(subject, schema_of(old)) == first
    other = open_registry(registry_url)
    assert await other.register(subject, schema_of(old)) == first
    assert [identity(one) for one in await other.versions(subject)] == [
        identity(schema_of(old)),
        identity(schema_of(new)),
    ]
    assert identity(await other.schema(second)) == identity(schema_of(new))
    await other.aclose()


async def test_an_unknown_id_is_not_found(registry):
    with pytest.raises(SchemaNotFoundError, match="schema 2000000000 is not in the registry"):
        await registry.schema(2_000_000_000)


async def test_an_event_written_by_one_process_is_read_by_another(registry, registry_url, topic):
    old, new = order_classes(topic)
    writer = Codec(registry)
    await writer.prepare(writes=[old], reads=[])
    sent = writer.encode(old(order_id="o1", tags=["a"]), META)
    record = Record(topic, 0, 0, 0, sent.key, sent.value, sent.headers)
    other = open_registry(registry_url)
    reader = Codec(other)
    await reader.prepare(writes=[], reads=[new])
    with pytest.raises(SchemaNotCachedError) as missing:
        reader.decode(record, new)
    await reader.load(missing.value.schema_id)
    assert reader.decode(record, new) == new(order_id="o1", tags=["a"])
    assert reader.metadata(record) == META
    assert dict(record.headers)["ce_dataschema"] == f"{registry_url}/schemas/ids/{missing.value.schema_id}".encode()
    await other.aclose()

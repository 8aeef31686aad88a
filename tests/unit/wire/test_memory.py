"""The registry in memory, alone and over a folder."""

import pytest

from choreo.errors import SchemaNotFoundError
from choreo.wire.folder import FolderRegistry
from choreo.wire.memory import MemoryRegistry

ONE = {"type": "record", "name": "Placed", "fields": [{"name": "id", "type": "string"}]}
TWO = {**ONE, "fields": [*ONE["fields"], {"name": "n", "type": "int", "default": 0}]}


async def test_schemas_have_the_ids_that_a_folder_gives_them(tmp_path):
    memory, folder = MemoryRegistry(), FolderRegistry(tmp_path)
    for schema in (ONE, TWO, ONE):
        assert await memory.register("orders-Placed", schema) == await folder.register("orders-Placed", schema)
    assert await memory.versions("orders-Placed") == await folder.versions("orders-Placed") == [ONE, TWO]
    number = await memory.register("orders-Placed", ONE)
    assert memory.address(number) == folder.address(number)
    assert await memory.schema(number) == ONE


async def test_what_is_nowhere_is_not_found():
    registry = MemoryRegistry()
    assert await registry.versions("orders-Placed") == []
    with pytest.raises(SchemaNotFoundError, match="schema 7 is not in this registry"):
        await registry.schema(7)
    await registry.aclose()


async def test_a_folder_below_is_read_and_never_written(tmp_path):
    number = await FolderRegistry(tmp_path).register("orders-Placed", ONE)
    before = sorted(tmp_path.rglob("*"))
    registry = MemoryRegistry(FolderRegistry(tmp_path))
    assert await registry.schema(number) == ONE
    await registry.register("orders-Placed", TWO)
    assert await registry.versions("orders-Placed") == [ONE, TWO]
    assert sorted(tmp_path.rglob("*")) == before
    await registry.aclose()

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from choreo.errors import ConfigurationError, IncompatibleSchemaError, SchemaNotFoundError
from choreo.wire import folder as folder_module
from choreo.wire import open_registry
from choreo.wire.avro import schema_id, text
from choreo.wire.folder import FolderRegistry


def version(number: int) -> dict[str, Any]:
    fields = [{"name": f"f{index}", "type": "long", "default": 0} for index in range(number)]
    return {"type": "record", "name": "Order", "fields": fields}


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "schemas")


def files(registry: FolderRegistry) -> dict[str, Any]:
    root = registry._root
    return {
        str(path.relative_to(root)): json.loads(path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()
    }


async def test_the_first_schema_becomes_the_contract(registry):
    assert await registry.register("my-orders-Order", version(1)) == schema_id(version(1))
    assert files(registry) == {"my-orders/Order.avsc": version(1)}
    assert await registry.versions("my-orders-Order") == [version(1)]


async def test_later_ones_become_versions_and_the_contract_stays(registry):
    for number in (1, 2, 3, 2, 1):
        await registry.register("orders-Order", version(number))
    assert files(registry) == {
        "orders/Order.avsc": version(1),
        "orders/versions/Order.1.avsc": version(1),
        "orders/versions/Order.2.avsc": version(2),
        "orders/versions/Order.3.avsc": version(3),
    }
    assert await registry.versions("orders-Order") == [version(1), version(2), version(3)]


async def test_the_order_of_versions_does_not_come_from_clocks_or_text_order(registry):
    for number in range(1, 12):
        await registry.register("orders-Order", version(number))
    for path in (registry._root / "orders/versions").iterdir():
        os.utime(path, (0, 0))
    assert await registry.versions("orders-Order") == [version(number) for number in range(1, 12)]


async def test_writing_a_contract_keeps_the_one_before(registry):
    assert registry.write_contract("orders", "Order", version(1)) == (registry._root / "orders/Order.avsc", True)
    assert registry.write_contract("orders", "Order", version(1))[1] is False
    assert registry.write_contract("orders", "Order", version(2))[1] is True
    assert files(registry) == {"orders/Order.avsc": version(2), "orders/versions/Order.1.avsc": version(1)}
    assert await registry.versions("orders-Order") == [version(1), version(2)]


async def test_a_changed_doc_is_no_new_version(registry):
    registry.write_contract("orders", "Order", version(1))
    documented = {**version(1), "doc": "An order."}
    assert registry.write_contract("orders", "Order", documented)[1] is True
    assert await registry.register("orders-Order", version(1)) == schema_id(documented)
    assert files(registry) == {"orders/Order.avsc": documented}


async def test_a_contract_written_by_hand_is_a_version(registry):
    path = registry._root / "orders/Order.avsc"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "Order", "type": "record", "fields": []}')
    assert await registry.register("orders-Order", version(0)) == schema_id(version(0))
    assert await registry.schema(schema_id(version(0))) == version(0)


async def test_types_whose_names_begin_alike_are_kept_apart(registry):
    for name in ("Order", "Order.V2", "com.acme.Order"):
        for number in (1, 2):
            await registry.register(f"orders-{name}", {**version(number), "name": name})
    for name in ("Order", "Order.V2", "com.acme.Order"):
        assert [one["name"] for one in await registry.versions(f"orders-{name}")] == [name, name]


async def test_schemas_are_found_by_id_also_when_they_came_later(registry, tmp_path):
    other = FolderRegistry(tmp_path / "schemas")
    with pytest.raises(SchemaNotFoundError, match=r"copy its \.avsc file there"):
        await other.schema(schema_id(version(2)))
    await registry.register("orders-Order", version(1))
    await registry.register("orders-Order", version(2))
    assert await other.schema(schema_id(version(2))) == version(2)


async def test_a_guid_is_unknown_to_a_folder(registry):
    with pytest.raises(SchemaNotFoundError):
        await registry.schema("0b5c1c5e-3ba9-4f2e-9d1c-0f3a5b7c9d1e")


async def test_an_unknown_subject_has_no_versions(registry):
    assert await registry.versions("nowhere-Order") == []


async def test_two_schemas_of_one_id_are_told(registry, monkeypatch):
    monkeypatch.setattr(folder_module, "schema_id", lambda _schema: 5)
    await registry.register("orders-Order", version(1))
    with pytest.raises(IncompatibleSchemaError, match="have the id 5, 31 bits of their hashes; one is Order"):
        await registry.register("orders-Order", version(2))


@pytest.mark.parametrize("content", ["{", "[]5", '{"type": "record"}', '{"name": "Order"}'])
async def test_a_file_that_is_no_schema_is_named(registry, content):
    path = registry._root / "orders/Order.avsc"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"orders/Order\.avsc is no Avro schema"):
        await registry.versions("orders-Order")


async def test_a_folder_that_cannot_be_written_names_the_remedy(registry, monkeypatch):
    await registry.register("orders-Order", version(1))

    def refuse(_handle: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder_module.os, "fsync", refuse)
    assert await registry.register("orders-Order", version(1)) == schema_id(version(1))
    with pytest.raises(ConfigurationError, match=r"cannot be written: Permission denied .run `choreo schema write`"):
        await registry.register("orders-Order", version(2))


async def test_a_file_in_the_place_of_the_folder_names_the_remedy(tmp_path):
    (tmp_path / "schemas").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await FolderRegistry(tmp_path / "schemas").register("orders-Order", version(1))


WORKER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from choreo.wire.folder import FolderRegistry
from tests.unit.wire.test_folder import version
async def main():
    registry = FolderRegistry(Path({folder!r}))
    sys.stdin.readline()
    for number in {numbers!r}:
        print(await registry.register("orders-Order", version(number)))
asyncio.run(main())
"""


def test_processes_register_at_the_same_time(tmp_path):
    """Each of four processes registers overlapping schemas, all let go at once."""
    root, folder = str(Path(__file__).parents[3]), str(tmp_path / "schemas")
    plans = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [1, 3, 5, 2, 4], [6, 1, 5, 3, 2]]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER.format(root=root, folder=folder, numbers=plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for plan in plans
    ]
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker, plan in zip(workers, plans, strict=True):
        out, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        assert [int(line) for line in out.split()] == [schema_id(version(number)) for number in plan]
    versions = asyncio.run(FolderRegistry(Path(folder)).versions("orders-Order"))
    assert sorted(len(one["fields"]) for one in versions) == [1, 2, 3, 4, 5, 6]
    assert not [path for path in Path(folder).rglob("*") if path.name.endswith(".tmp")]
    numbers = sorted(int(path.stem.split(".")[1]) for path in Path(folder).glob("orders/versions/*"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_written_text_is_the_file(registry):
    path, _ = registry.write_contract("orders", "Order", version(1))
    assert path.read_text(encoding="utf-8") == text(version(1))
    assert path.stat().st_mode & 0o777 == 0o644
    assert registry.contracts("Order") == [("orders", version(1))]


def test_addresses_choose_the_registry(tmp_path):
    assert isinstance(open_registry(str(tmp_path)), FolderRegistry)
    with pytest.raises(ConfigurationError, match=r"address has the unknown scheme 'ftp' .name a folder") as error:
        open_registry("ftp://user:secret@host/x")
    assert "secret" not in str(error.value)

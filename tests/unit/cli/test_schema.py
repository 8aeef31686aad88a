from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from choreo.cli import schema as cli
from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.routing import route
from choreo.wire.compat import Mode
from choreo.wire.folder import FolderRegistry
from choreo.wire.schema import schema_of


class Placed(Event, topic="orders", key="order_id"):
    order_id: str
    pieces: int


class Paid(Event, topic="payments", key="order_id"):
    order_id: str


class PlacedLater(Event, topic="orders", key="order_id", name="Placed"):
    order_id: str
    pieces: float
    city: str


@pytest.fixture
def folder(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "schemas")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a command on these classes; returns its exit code and what it printed."""

    def call(*arguments: str, classes: tuple[type[Event], ...] = (Placed, Paid)) -> tuple[int, str]:
        monkeypatch.setattr(cli, "_classes", lambda _targets: list(classes))
        monkeypatch.setenv("CHOREO_REGISTRY", str(tmp_path / "schemas"))
        result = CliRunner().invoke(cli.app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


def found(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row.path, row.kind) for row in rows]


def write(folder: FolderRegistry, cls: type[Event]) -> bool:
    return folder.write_contract(cls.contract.topics[0], cls.contract.type_name, schema_of(cls))[1]


async def test_written_contracts_agree_with_their_classes(folder):
    assert [write(folder, cls) for cls in (Placed, Paid)] == [True, True]
    assert [write(folder, cls) for cls in (Placed, Paid)] == [False, False]
    assert folder.contract("orders", "Placed") == schema_of(Placed)
    assert await cli.find([Placed, Paid], folder, Mode.FULL_TRANSITIVE) == []


async def test_a_routed_event_has_its_contract_in_each_topic(run, folder, tmp_path):
    class Arrived(Event, topic=route(str, among=("files", "files.large")), key="id"):
        id: str

    class Large(Arrived, topic="files.large", key="id", name="Arrived"):
        """A view, whose own words are none of the contract's business."""

    code, output = run("write", classes=(Arrived, Large))
    assert (code, output.count("written")) == (0, 2)
    assert folder.contract("files", "Arrived") == folder.contract("files.large", "Arrived") == schema_of(Arrived)
    assert await cli.find([Arrived], folder, Mode.FULL_TRANSITIVE) == []
    (tmp_path / "schemas" / "files.large" / "Arrived.avsc").unlink()
    [finding] = await cli.find([Arrived], folder, Mode.NONE)
    assert (finding.topic, finding.kind) == ("files.large", "missing")


async def test_a_class_without_contract_is_found(folder):
    [finding] = await cli.find([Placed], folder, Mode.NONE)
    assert finding == cli.Finding("Placed", "orders", "missing", "", "has no contract (run `choreo schema write`)")


async def test_drift_and_what_it_breaks_are_found_with_their_fields(folder):
    write(folder, Placed)
    findings = await cli.find([PlacedLater], folder, Mode.BACKWARD_TRANSITIVE)
    assert found(findings) == [("city", "drift"), ("pieces", "drift"), ("city", "missing-default")]
    assert [finding.reason for finding in findings] == [
        'is {"type": "string"} in the class, absent in the contract',
        'is {"type": "double"} in the class, {"type": "long"} in the contract',
        "the writer has no such field, and it has no default (backward, version 1)",
    ]
    assert found(await cli.find([PlacedLater], folder, Mode.NONE)) == [("city", "drift"), ("pieces", "drift")]
    forward = await cli.find([PlacedLater], folder, Mode.FORWARD)
    assert ("pieces", "type-mismatch") in found(forward)


async def test_an_incompatible_change_is_found_even_after_it_was_written(folder):
    write(folder, Placed)
    write(folder, PlacedLater)
    assert found(await cli.find([PlacedLater], folder, Mode.BACKWARD_TRANSITIVE)) == [("city", "missing-default")]


def inner(avro: str, name: str = "I") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": "x", "type": avro}]}


@pytest.mark.parametrize(
    ("contract", "schema", "path", "reason"),
    [
        (["null", "string"], "string", "f", 'is {"type": "string"} in the class, {"type": ["null", "string"]} in'),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, "f", '"items": "long"'),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, "f", '"values": "long"'),
        (
            ["null", {"type": "enum", "name": "E", "symbols": ["A"]}],
            ["null", {"type": "enum", "name": "E", "symbols": ["A", "B"]}],
            "f",
            '"symbols": ["A", "B"]',
        ),
        (
            ["null", {"type": "array", "items": inner("int")}],
            ["null", {"type": "array", "items": inner("long")}],
            "f",
            '{"name": "x", "type": "long"}',
        ),
        ([inner("int"), inner("int", "J")], [inner("int"), inner("long", "J")], "f", '{"name": "x", "type": "long"}'),
    ],
)
def test_differences_are_named_where_they_are(contract, schema, path, reason):
    [(where, what)] = cli.differences(
        *({"type": "record", "name": "R", "fields": [{"name": "f", "type": one}]} for one in (contract, schema))
    )
    assert where == path
    assert reason in what


def test_a_changed_default_is_drift():
    one, two = (
        {"type": "record", "name": "R", "fields": [{"name": "f", "type": "int", "default": default}]}
        for default in (1, 2)
    )
    assert list(cli.differences(one, two)) == [
        ("f", 'is {"default": 2, "type": "int"} in the class, {"default": 1, "type": "int"} in the contract')
    ]


def test_a_changed_alias_of_the_record_is_drift():
    one, two = ({**inner("int"), "aliases": [alias]} for alias in ("a", "b"))
    [(path, _)] = cli.differences(one, two)
    assert path == ""


def test_the_commands_write_check_and_show(run, tmp_path):
    code, output = run("write")
    assert code == 0
    assert output.splitlines() == [
        f"written {tmp_path}/schemas/{name}.avsc" for name in ("orders/Placed", "payments/Paid")
    ]
    assert run("write")[1].count("unchanged") == 2
    assert run("check") == (0, "2 events, 0 findings\n")
    code, output = run("show", "Placed")
    assert code == 0
    assert json.loads(output) == schema_of(Placed)


def test_check_fails_and_names_field_reason_and_rule(run):
    run("write")
    code, output = run("check", classes=(PlacedLater,))
    assert code == 1
    assert "orders/Placed: field city the writer has no such field, and it has no default" in output
    assert "[missing-default]" in output
    assert output.endswith("1 events, 3 findings\n")
    assert run("check", "--mode", "NONE", classes=(PlacedLater,))[1].endswith("1 events, 2 findings\n")


def test_json_output_is_json(run, tmp_path):
    code, output = run("write", "--json")
    assert [row["changed"] for row in json.loads(output)] == [True, True]
    code, output = run("check", "--json", classes=(PlacedLater,))
    assert code == 1
    assert {row["path"] for row in json.loads(output)} == {"city", "pieces"}
    code, output = run("show", "Placed", "--json")
    assert json.loads(output)["topic"] == "orders"


def test_the_folder_can_be_named(run, tmp_path):
    code, _ = run("write", "--schemas", str(tmp_path / "other"))
    assert code == 0
    assert (tmp_path / "other/orders/Placed.avsc").exists()


def test_writing_needs_a_folder(run):
    with pytest.raises(ConfigurationError, match="is no folder"):
        run("write", "--registry", "http://127.0.0.1:9")


def test_showing_an_unknown_type_names_the_remedy(run):
    with pytest.raises(ConfigurationError, match=r"has no contract of Nothing .run `choreo schema write`"):
        run("show", "Nothing")

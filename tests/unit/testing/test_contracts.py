"""Contract tests in one line: what services read and emit, against the schemas of another repository."""

from __future__ import annotations

import pytest

from choreo import ConfigurationError, Event, Service
from choreo.testing import assert_contract
from choreo.wire.folder import FolderRegistry
from choreo.wire.schema import schema_of


class Placed(Event, topic="orders", key="id"):
    """As its producer has it now."""

    id: str
    total: int
    note: str = ""


class OldPlaced(Event, topic="orders", key="id", name="Placed"):
    """As its producer had it at first."""

    id: str


class PlacedView(Event, topic="orders", key="id", name="Placed"):
    """As a reader sees it that needs little."""

    id: str


class Demanding(Event, topic="orders", key="id", name="Placed"):
    """As a reader sees it that has never looked at the contract."""

    id: int
    card: str


class Paid(Event, topic="payments", key="id"):
    id: str


@pytest.fixture
def folder(tmp_path):
    registry = FolderRegistry(tmp_path / "schemas")
    for event in (OldPlaced, Placed):
        registry.write_contract("orders", "Placed", schema_of(event))
    return tmp_path / "schemas"


def test_what_can_be_read_is_fine(folder):
    assert_contract(folder, reads=[PlacedView], emits=[Placed])
    assert_contract(str(folder), reads=[PlacedView])


def test_a_reader_is_held_against_every_version(folder):
    with pytest.raises(AssertionError) as failed:
        assert_contract(folder, reads=[Placed])
    assert str(failed.value).splitlines()[1:] == [
        "  orders/Placed: field total, version 1 cannot be read, " + str(failed.value).rpartition("cannot be read, ")[2]
    ]
    assert "[missing-default]" in str(failed.value)


def test_each_field_is_named(folder):
    with pytest.raises(AssertionError) as failed:
        assert_contract(folder, reads=[Demanding])
    said = str(failed.value)
    assert said.count("orders/Placed: field id, version") == 2
    assert said.count("orders/Placed: field card, version") == 2


def test_what_is_emitted_must_be_readable_by_the_contract(folder):
    with pytest.raises(
        AssertionError, match=r"orders/Placed: field total, what is emitted cannot be read by the contract"
    ):
        assert_contract(folder, emits=[OldPlaced])


def test_a_service_is_checked_as_far_as_the_folder_knows_its_topics(folder):
    service = Service("payments")

    @service.on(Demanding)
    async def pay(order: Demanding) -> Paid:
        return Paid(id=str(order.id))

    with pytest.raises(AssertionError, match="orders/Placed: field card"):
        assert_contract(folder, service)

    fine = Service("fine")

    @fine.on(PlacedView)
    async def handle(order: PlacedView) -> Paid:
        return Paid(id=order.id)

    assert_contract(folder, fine)


def test_an_event_without_a_contract_is_named(folder):
    with pytest.raises(AssertionError, match=r"payments/Paid: has no contract \[missing\]"):
        assert_contract(folder, emits=[Paid])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no folder"):
        assert_contract(tmp_path / "nowhere", reads=[Paid])


async def test_it_can_be_called_where_an_event_loop_runs(folder):
    assert_contract(folder, reads=[PlacedView])

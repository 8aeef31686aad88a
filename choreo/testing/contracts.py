"""Contract tests: whether a service can read what another repository publishes, and publishes what others can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.service import Service
from choreo.wire.avro import identity
from choreo.wire.compat import Incompatibility, unreadable
from choreo.wire.folder import FolderRegistry
from choreo.wire.schema import schema_of


def assert_contract(
    schemas: str | Path, *services: Service, reads: Iterable[type[Event]] = (), emits: Iterable[type[Event]] = ()
) -> None:
    """Assert that services, or event classes, keep to the contracts in a folder, usually of another repository.

        assert_contract("../orders/schemas", reads=[OrderPlaced])

    What is read must be readable from every version in the folder. What is emitted must be readable by whoever knows the
    newest version.

    Args:
        schemas: a folder as `choreo schema write` makes it.
        services: of these, every event that their handlers take or emit and whose topic the folder has.
        reads, emits: event classes; the folder must have them.

    Raises:
        AssertionError: names each event, field and rule that is broken.
        ConfigurationError: there is no such folder.
    """
    root = Path(schemas)
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {root}", remedy="name the folder of the contracts: schemas/")
    folder = FolderRegistry(root)
    handlers = [handler for service in services for handler in service.handlers.values()]
    taken = [event for handler in handlers for event in handler.consumes if _is_known(root, event)]
    emitted = [event for handler in handlers for event in handler.emits.classes if _is_known(root, event)]
    found = [fault for event in dict.fromkeys((*taken, *reads)) for fault in _unread(folder, event)]
    found += [fault for event in dict.fromkeys((*emitted, *emits)) for fault in _unreadable(folder, event)]
    if found:
        raise AssertionError("\n".join([f"contracts in {root} are broken:", *(f"  {fault}" for fault in found)]))


def _is_known(root: Path, event: type[Event]) -> bool:
    return any((root / topic).is_dir() for topic in event.contract.topics)


def _unread(folder: FolderRegistry, event: type[Event]) -> Iterator[str]:
    """What of an event the class cannot read."""
    for topic in event.contract.topics:
        versions = folder.history(f"{topic}-{event.contract.type_name}")
        if not versions:
            yield _missing(topic, event)
        for number, version in enumerate(versions, 1):
            for fault in unreadable(schema_of(event), version):
                yield _words(topic, event, fault, f"version {number} cannot be read")


def _unreadable(folder: FolderRegistry, event: type[Event]) -> Iterator[str]:
    """What of an event others cannot read."""
    for topic in event.contract.topics:
        contract = folder.contract(topic, event.contract.type_name)
        if contract is None:
            yield _missing(topic, event)
        elif identity(contract) != identity(schema_of(event)):
            for fault in unreadable(contract, schema_of(event)):
                yield _words(topic, event, fault, "what is emitted cannot be read by the contract")


def _missing(topic: str, event: type[Event]) -> str:
    return f"{topic}/{event.contract.type_name}: has no contract [missing]"


def _words(topic: str, event: type[Event], fault: Incompatibility, what: str) -> str:
    field = f" field {fault.path}," if fault.path else ""
    return f"{topic}/{event.contract.type_name}:{field} {what}, {fault.reason} [{fault.rule}]"

"""`choreo doctor`: is everything there that the services need, and if not, what to do."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from choreo.choreography import Choreography
from choreo.cli.common import (
    FAILED,
    PROBE_TOPIC,
    JsonOption,
    LogOption,
    Modules,
    RegistryOption,
    print_json,
    print_table,
    run_async,
    settings_with,
)
from choreo.cli.load import load_services, named
from choreo.cli.tail import StartAt, until
from choreo.errors import ChoreoError
from choreo.log import Log, NewRecord, Topic, TopicPartition, open_log
from choreo.store import make_store

if TYPE_CHECKING:
    from choreo.cli.schema import Finding as SchemaFinding
    from choreo.runtime.settings import Settings

EXAMPLES = """Examples:

choreo doctor services.shop

choreo doctor --log kafka://localhost:9092 --json"""

_PACKAGES = ("choreo", "confluent-kafka", "fastavro", "pydantic", "opentelemetry-api")
_OTHER_VARIABLES = {"CHOREO_MODULES", "CHOREO_DEBUG", "CHOREO_LOG_LEVEL", "CHOREO_LOG_FORMAT"}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Finding(NamedTuple):
    """One line of the report: what was looked at, how it is, and what to do where it is not well."""

    status: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    remedy: str = ""


def doctor(
    modules: Modules = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, settings, the log, topics, contracts and stores; exit code 1 if something fails.

    Events and stores are left as they are. Whether the log can be written is tried on a topic of its own,
    choreo.doctor; it is made on embedded logs only.
    """
    from rich.text import Text

    findings = run_async(_all(modules or [], settings_with(log=log, registry=registry)))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        styled = [(Text(finding.status, _STYLES[finding.status]), *finding[1:]) for finding in findings]
        print_table(("", "what", "how it is", "what to do"), styled)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(FAILED)


async def _all(modules: list[str], settings: Settings) -> list[Finding]:
    choreography = Choreography.of(load_services(modules) if named(modules) else [])
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    findings = [Finding("ok", "versions", f"Python {platform.python_version()}, {versions}"), _variables(settings)]
    for look in (_log(settings, choreography), _contracts(settings, choreography), _stores(settings, choreography)):
        findings += [finding async for finding in look]
    return findings


def _variables(settings: Settings) -> Finding:
    known = {f"CHOREO_{name.upper()}" for name in type(settings).model_fields} | _OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith("CHOREO_") and name not in known)
    if unknown:
        remedy = f"there are: {', '.join(sorted(known))}"
        return Finding("warn", "settings", f"nobody reads {', '.join(unknown)}", remedy)
    places = (f"{name} {_shown(getattr(settings, name))}" for name in ("log", "store", "registry"))
    return Finding("ok", "settings", ", ".join(places))


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password and options."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


async def _log(settings: Settings, choreography: Choreography) -> AsyncIterator[Finding]:
    try:
        async with open_log(settings.log, settings.kafka) as log:
            topics = await log.topics()
            yield Finding("ok", "log", f"{log.url} answers, {len(topics)} topics")
            if "consumer" in log.capabilities.group_protocols and settings.kafka.get("group.protocol") != "consumer":
                hint = """with Kafka 4.0 or newer, CHOREO_KAFKA='{"group.protocol": "consumer"}' rebalances without a stop"""
                yield Finding("ok", "group protocol", f"classic; {hint} (KIP-848)")
            yield await _round_trip(log, may_create=settings.creates_topics, there=PROBE_TOPIC in topics)
            if choreography.topics:
                yield _topics(choreography.topics, topics, may_create=settings.creates_topics)
    except ChoreoError as error:
        yield Finding("fail", "log", str(error))


def _topics(wanted: list[str], there: Mapping[str, Topic], *, may_create: bool) -> Finding:
    counts = sorted({there[name].partitions for name in wanted if name in there})
    missing = [name for name in wanted if name not in there]
    if not missing:
        return Finding("ok", "topics", f"{len(wanted)} are there, each with {' or '.join(map(str, counts))} partitions")
    if may_create:
        return Finding("ok", "topics", f"{', '.join(missing)} will be made at the first start")
    return Finding("fail", "topics", f"there is no {', '.join(missing)}", "choreo topics create MODULE")


async def _round_trip(log: Log, *, may_create: bool, there: bool) -> Finding:
    """Append a record to the topic that is there for it, and read it back."""
    if not there and not may_create:
        remedy = f"choreo topics create --topic {PROBE_TOPIC} --partitions 1 --set retention.ms=3600000"
        return Finding("warn", "log written and read", f"not tried, there is no topic {PROBE_TOPIC}", remedy)
    if not there:
        await log.create_topics([Topic(name=PROBE_TOPIC, partitions=1, settings={"retention.ms": "3600000"})])
    place, mark = TopicPartition(PROBE_TOPIC, 0), os.urandom(8)
    ends = await log.end_offsets([place])
    producer, reader = log.producer(), log.consumer([PROBE_TOPIC], listener=StartAt(ends))
    try:
        await producer.append([NewRecord(PROBE_TOPIC, None, mark, [], partition=0)])
        async for record in until(reader, await log.end_offsets([place])):
            if record.value == mark:
                return Finding("ok", "log written and read", f"a record went to {PROBE_TOPIC} and came back")
        return Finding("fail", "log written and read", f"a record went to {PROBE_TOPIC} and did not come back")
    finally:
        await producer.close()
        await reader.close()


async def _contracts(settings: Settings, choreography: Choreography) -> AsyncIterator[Finding]:
    from choreo.cli.schema import find
    from choreo.wire.compat import Mode
    from choreo.wire.registry import open_registry

    try:
        async with aclosing(open_registry(settings.registry)) as registry:
            await registry.versions("choreo.doctor-Nothing")
            yield Finding("ok", "registry", f"{_shown(settings.registry)} answers")
            classes = list(choreography.event_classes)
            faults = await find(classes, registry, Mode.BACKWARD_TRANSITIVE)
    except ChoreoError as error:
        yield Finding("fail", "registry", str(error))
        return
    emitted = {event.name for event in choreography.events if event.emitted_by}
    by_event: dict[str, list[SchemaFinding]] = {}
    for fault in faults:
        if fault.kind != "drift" or fault.event in emitted:  # who only reads an event may have a view of its own
            by_event.setdefault(f"{fault.topic}/{fault.event}", []).append(fault)
    for event, found in by_event.items():
        status: Literal["warn", "fail"] = "warn" if all(fault.kind == "missing" for fault in found) else "fail"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        detail = f"{found[0].path} {found[0].reason}{more}".strip()
        yield Finding(status, f"contract {event}", detail, "choreo schema check MODULE")
    if classes and not by_event:
        yield Finding("ok", "contracts", f"those of {len(classes)} event classes agree with the classes")


async def _stores(settings: Settings, choreography: Choreography) -> AsyncIterator[Finding]:
    owners: dict[str, str] = {}
    for service in choreography.services:
        url, what = settings.store_of(service.name, service.store), f"store of {service.name}"
        owner = owners.setdefault(url, service.name)
        if owner != service.name:
            detail = f"{_shown(url)} is the store of {owner} too"
            yield Finding("fail", what, detail, "a store has one service: Service(store=...)")
        elif _is_new(url):
            yield Finding("ok", what, f"{_shown(url)} is made at the first start")
        else:
            yield await _opened(what, url, service.name)


def _is_new(url: str) -> bool:
    return url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists()


async def _opened(what: str, url: str, service: str) -> Finding:
    try:
        store = make_store(url)
        try:
            await store.open(service)
            return Finding("ok", what, f"{_shown(url)} opens")
        finally:
            await store.close()
    except ChoreoError as error:
        return Finding("fail", what, str(error))

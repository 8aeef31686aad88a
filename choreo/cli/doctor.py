"""`choreo doctor`: is everything there that the services need, and if not, what to do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from choreo.choreography import Choreography
from choreo.cli import common
from choreo.cli.load import load_services, named
from choreo.errors import ChoreoError
from choreo.log import open_log
from choreo.runtime.settings import Settings
from choreo.store import make_store

EXAMPLES = "Examples:\n\nchoreo doctor services.shop\n\nchoreo doctor --log kafka://localhost:9092 --json"

Status = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One line of the report: what was looked at, how it is, and what to do where it is not well."""

    status: Status
    what: str
    detail: str
    remedy: str = ""


def doctor(
    modules: common.Modules = None,
    log: common.LogOption = None,
    registry: common.RegistryOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Check the log, topics, contracts and stores; exit code 1 if something fails.

    Events, topics and contracts are left as they are; stores that exist are opened as at a start.
    """
    choreography = Choreography.of(load_services(modules or []) if named(modules or []) else [])
    findings = common.run_async(_all(common.settings_with(log=log, registry=registry), choreography))
    common.print_rows([finding._asdict() for finding in findings], as_json=as_json)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(common.FAILED)


async def _all(settings: Settings, choreography: Choreography) -> list[Finding]:
    findings: list[Finding] = []
    looks = {"log": _log(settings, choreography), "registry": _contracts(settings, choreography)}
    for service in choreography.services:
        what = f"store of {service.name}"
        looks[what] = _store(what, service.name, settings.store_of(service.name, service.store))
    for what, look in looks.items():
        try:
            async for finding in look:
                findings.append(finding)  # noqa: PERF401 - those before an error count too
        except ChoreoError as error:
            findings.append(Finding("fail", what, str(error)))
    return findings


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password and options."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


async def _log(settings: Settings, choreography: Choreography) -> AsyncIterator[Finding]:
    async with open_log(settings.log, settings.kafka) as log:
        topics = await log.topics()
        yield Finding("ok", "log", f"{log.url} answers, {len(topics)} topics")
    missing = ", ".join(name for name in choreography.topics if name not in topics)
    if missing and settings.creates_topics:
        yield Finding("ok", "topics", f"{missing} will be made at the first start")
    elif missing:
        yield Finding("fail", "topics", f"there is no {missing}", "choreo topics create MODULE")
    elif choreography.topics:
        counts = sorted({topics[name].partitions for name in choreography.topics})
        detail = f"{len(choreography.topics)} are there, each with {' or '.join(map(str, counts))} partitions"
        yield Finding("ok", "topics", detail)


async def _contracts(settings: Settings, choreography: Choreography) -> AsyncIterator[Finding]:
    from choreo.cli.schema import find
    from choreo.wire.compat import Mode
    from choreo.wire.registry import open_registry

    classes = list(choreography.event_classes)
    async with aclosing(open_registry(settings.registry)) as registry:
        await registry.versions("choreo.doctor-Nothing")
        yield Finding("ok", "registry", f"{_shown(settings.registry)} answers")
        faults = await find(classes, registry, Mode.BACKWARD_TRANSITIVE)
    emitted = {event.name for event in choreography.events if event.emitted_by}
    # Who only reads an event may have a view of its own.
    faults = [fault for fault in faults if fault.kind != "drift" or fault.event in emitted]
    for fault in faults:
        status: Status = "warn" if fault.kind == "missing" else "fail"
        detail = f"{fault.path} {fault.reason}".strip()
        yield Finding(status, f"contract {fault.topic}/{fault.event}", detail, "choreo schema check MODULE")
    if classes and not faults:
        yield Finding("ok", "contracts", f"those of {len(classes)} event classes agree with the classes")


async def _store(what: str, service: str, url: str) -> AsyncIterator[Finding]:
    file = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if url.startswith("sqlite:") and not file.exists():  # noqa: ASYNC240 - one look, and nothing else runs
        yield Finding("ok", what, f"{_shown(url)} is made at the first start")
        return
    store = make_store(url)
    try:
        await store.open(service)
        yield Finding("ok", what, f"{_shown(url)} opens")
    finally:
        await store.close()

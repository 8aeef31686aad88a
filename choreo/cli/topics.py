"""`choreo topics`: plan, create, change, list and tail the topics of the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from choreo import errors
from choreo.choreography import Choreography
from choreo.cli import common, tail
from choreo.cli.load import load_services
from choreo.log import Topic, TopicPartition, open_log
from choreo.runtime.settings import Settings
from choreo.service import Service

if TYPE_CHECKING:
    from choreo.cli.topic_plan import Step, Wish

Names = list[str] | None
Row: TypeAlias = dict[str, Any]

app = typer.Typer(help="Plan, create, change, list and tail topics.", no_args_is_help=True, rich_markup_mode="markdown")
app.command(epilog=tail.EXAMPLES)(tail.tail)


Partitions = Annotated[int | None, typer.Option(min=1, help="More lets more instances share the work.")]
Replication = Annotated[int | None, typer.Option(min=1, help="Copies; else the log's own default.")]
Given = Annotated[Names, typer.Option("--set", metavar="NAME=VALUE", help="As retention.ms=1000.")]
Overrides = Annotated[
    Path | None, typer.Option("--file", metavar="TOML", help="Tables by topic or pattern, the last that fits winning.")
]
Principal = Annotated[
    str | None,
    typer.Option("--acls", metavar="PRINCIPAL", help="The least rights instead, of User:x, or User:{service} each."),
]


@app.command(epilog="Examples:\n\nchoreo topics create services.shop --partitions 12\n\nchoreo topics create -t orders")
def create(
    modules: Annotated[Names, typer.Argument(metavar="MODULE", help="All topics that its services need.")] = None,
    names: Annotated[Names, typer.Option("--topic", "-t", metavar="NAME", help="A topic by its name.")] = None,
    partitions: Partitions = None,
    replication: Replication = None,
    given: Given = None,
    log: common.LogOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Create topics that do not exist. Existing ones are left as they are."""
    from choreo.cli.topic_plan import wishes

    wanted = dict.fromkeys([*(names or []), *(Choreography.of(load_services(modules)).topics if modules else [])])
    if not wanted:
        raise errors.ConfigurationError("no topic is named", remedy="name a module with services, or --topic NAME")
    wished = wishes(list(wanted), _general(partitions, replication, given), None)
    topics = [wish.topic(name) for name, wish in wished.items()]
    created = common.run_async(_create(common.settings_with(log=log), topics))
    common.print_rows([{"topic": n, "state": "created" if n in created else "exists"} for n in wanted], as_json=as_json)


def _general(partitions: int | None, replication: int | None, given: Names) -> Wish:
    from choreo.cli.topic_plan import Wish

    pairs = [setting.partition("=") for setting in given or []]
    if not all(name and equals for name, equals, _ in pairs):
        raise errors.ConfigurationError("--set takes NAME=VALUE", remedy="such as --set retention.ms=604800000")
    return Wish(partitions, replication, {name: value for name, _, value in pairs})


async def _create(settings: Settings, topics: list[Topic]) -> list[str]:
    async with open_log(settings.log, settings.kafka) as log:
        return await log.create_topics(topics)


@app.command(
    epilog="Examples:\n\nchoreo topics plan services.shop\n\nchoreo topics plan services.shop --acls User:shop"
)
def plan(
    modules: common.Modules = None,
    partitions: Partitions = None,
    replication: Replication = None,
    given: Given = None,
    file: Overrides = None,
    acls: Principal = None,
    log: common.LogOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show what `apply` would do: create, change, ok, or cannot (exit code 1). Nothing is changed."""
    services, settings = load_services(modules or []), common.settings_with(log=log)
    if acls:
        common.print_rows(_rights(services, acls, settings), as_json=as_json)
        return
    _report(common.run_async(_steps(settings, services, _general(partitions, replication, given), file)), as_json)


def _rights(services: list[Service], principal: str, settings: Settings) -> list[Row]:
    from choreo.cli.topic_plan import rights_of

    hosts = settings.log.removeprefix("kafka://").partition("?")[0] if settings.log.startswith("kafka://") else "BROKER"
    return [
        {
            "service": service.name,
            "right": f"{right.operation} {right.kind} {right.name}{'*' * right.prefixed}",
            "command": right.command(principal.replace("{service}", service.name), hosts),
        }
        for service in services
        for right in rights_of(service)
    ]


@app.command(epilog="Example: choreo topics apply services.shop --partitions 12 --replication 3 --file topics.toml")
def apply(
    modules: common.Modules = None,
    partitions: Partitions = None,
    replication: Replication = None,
    given: Given = None,
    file: Overrides = None,
    log: common.LogOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Create the topics that services need and change those that are otherwise; nothing at all if one cannot be."""
    services, settings = load_services(modules or []), common.settings_with(log=log)
    general = _general(partitions, replication, given)
    _report(common.run_async(_steps(settings, services, general, file, apply=True)), as_json)


def _report(steps: list[Step], as_json: bool) -> None:
    rows = [{"topic": step.topic, "state": step.state, "detail": step.detail} for step in steps]
    common.print_rows(rows, as_json=as_json)
    if any(step.state == "cannot" for step in steps):
        raise typer.Exit(common.FAILED)


async def _steps(
    settings: Settings, services: list[Service], general: Wish, file: Path | None, *, apply: bool = False
) -> list[Step]:
    from choreo.cli.topic_plan import compare, wishes

    wished = wishes(Choreography.of(services).topics, general, file)
    async with open_log(settings.log, settings.kafka) as log:
        known = await log.topics()
        in_force = await log.settings_of([name for name in wished if name in known])
        known |= {name: replace(known[name], settings=values) for name, values in in_force.items()}
        steps = [compare(name, wish, known.get(name)) for name, wish in wished.items()]
        if apply and not any(step.state == "cannot" for step in steps):
            await log.create_topics([step.wanted for step in steps if step.state == "create" and step.wanted])
            for step in steps:
                if step.state == "change" and step.wanted:
                    await log.change_topic(step.wanted)
    return steps


@app.command("list", epilog="Example: choreo topics list --log kafka://localhost:9092 --json")
def list_topics(log: common.LogOption = None, as_json: common.JsonOption = False) -> None:
    """List topics, their partitions, and how many offsets they hold (records, where nothing was compacted)."""
    common.print_rows(common.run_async(_list(common.settings_with(log=log))), as_json=as_json)


async def _list(settings: Settings) -> list[dict[str, object]]:
    async with open_log(settings.log, settings.kafka, make=False) as log:
        topics = sorted((await log.topics()).values(), key=lambda topic: topic.name)
        places = {t.name: [TopicPartition(t.name, number) for number in range(t.partitions)] for t in topics}
        everything = [place for those in places.values() for place in those]
        begins, ends = await log.beginning_offsets(everything), await log.end_offsets(everything)
    held = {name: sum(ends[place] - begins[place] for place in those) for name, those in places.items()}
    return [{"topic": t.name, "partitions": t.partitions, "offsets": held[t.name]} for t in topics]

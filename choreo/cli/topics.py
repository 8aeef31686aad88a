"""`choreo topics`: create, list and tail the topics of the log."""

from __future__ import annotations

from typing import Annotated

import typer

from choreo.choreography import Choreography
from choreo.cli import tail
from choreo.cli.common import JsonOption, LogOption, print_rows, run_async, settings_with
from choreo.cli.load import load_services
from choreo.errors import ConfigurationError
from choreo.log import Topic, TopicPartition, open_log
from choreo.runtime.settings import Settings

Names = list[str] | None

app = typer.Typer(help="Create, list and tail topics.", no_args_is_help=True, rich_markup_mode="markdown")
app.command(epilog=tail.EXAMPLES)(tail.tail)


@app.command(epilog="Examples: choreo topics create services.shop --partitions 12 | choreo topics create -t orders")
def create(
    modules: Annotated[Names, typer.Argument(metavar="MODULE", help="All topics that its services need.")] = None,
    names: Annotated[Names, typer.Option("--topic", "-t", metavar="NAME", help="A topic by its name.")] = None,
    partitions: Annotated[int, typer.Option(min=1, help="More lets more instances share the work.")] = 4,
    replication: Annotated[int, typer.Option(min=-1, help="Copies; -1 is the broker's own default.")] = -1,
    given: Annotated[Names, typer.Option("--set", metavar="NAME=VALUE", help="As retention.ms=1000.")] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create topics that do not exist. Existing ones are left as they are."""
    pairs = [setting.partition("=") for setting in given or []]
    if not all(name and equals for name, equals, _ in pairs):
        raise ConfigurationError("--set takes NAME=VALUE", remedy="such as --set retention.ms=604800000")
    wanted = dict.fromkeys([*(names or []), *(Choreography.of(load_services(modules)).topics if modules else [])])
    if not wanted:
        raise ConfigurationError("no topic is named", remedy="name a module with services, or --topic NAME")
    kwargs = {name: value for name, _, value in pairs}
    topics = [Topic(name=n, partitions=partitions, replication=replication, settings=kwargs) for n in wanted]
    created = run_async(_create(settings_with(log=log), topics))
    print_rows([{"topic": n, "state": "created" if n in created else "exists"} for n in wanted], as_json=as_json)


async def _create(settings: Settings, topics: list[Topic]) -> list[str]:
    async with open_log(settings.log, settings.kafka) as log:
        return await log.create_topics(topics)


@app.command("list", epilog="Example: choreo topics list --log kafka://localhost:9092 --json")
def list_topics(log: LogOption = None, as_json: JsonOption = False) -> None:
    """List topics, their partitions, and how many offsets they hold (records, where nothing was compacted)."""
    print_rows(run_async(_list(settings_with(log=log))), as_json=as_json)


async def _list(settings: Settings) -> list[dict[str, object]]:
    async with open_log(settings.log, settings.kafka) as log:
        topics = sorted((await log.topics()).values(), key=lambda topic: topic.name)
        places = {t.name: [TopicPartition(t.name, number) for number in range(t.partitions)] for t in topics}
        everything = [place for those in places.values() for place in those]
        begins, ends = await log.beginning_offsets(everything), await log.end_offsets(everything)
    held = {name: sum(ends[place] - begins[place] for place in those) for name, those in places.items()}
    return [{"topic": t.name, "partitions": t.partitions, "offsets": held[t.name]} for t in topics]

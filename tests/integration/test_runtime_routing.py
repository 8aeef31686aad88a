"""Events that go to one of several topics, and services that read all of them or one."""

from __future__ import annotations

from choreo import Event, Service, connect, route
from tests.support import eventually


def pool(file) -> str:
    return "files.large" if file.size > 9 else "files"


class FileArrived(Event, topic=route(pool, among=("files", "files.large")), key="tenant"):
    tenant: str
    size: int


class LargeFile(FileArrived, topic="files.large", key="tenant", name="FileArrived"):
    pass


class FileSplit(Event, topic="splits", key="tenant"):
    tenant: str


class Lost(Event, topic=route(lambda lost: "nowhere", among=("here", "there")), key="tenant"):
    tenant: str


async def test_a_pool_gets_what_is_routed_to_it_and_everybody_else_everything(memory_world):
    everything, heavy, seen = Service("audit"), Service("heavy"), {"audit": [], "heavy": []}

    @everything.on(FileArrived)
    async def note(file: FileArrived) -> None:
        seen["audit"].append(file.size)

    @heavy.on(LargeFile)
    async def work(file: LargeFile) -> None:
        seen["heavy"].append(file.size)

    async with memory_world.running(everything, heavy), connect(memory_world.settings(), log=memory_world.log) as bus:
        await bus.publish_many([FileArrived(tenant=f"t{n}", size=n) for n in (1, 10, 9, 12)])
        await eventually(lambda: (len(seen["audit"]), len(seen["heavy"])) == (4, 2), lambda: seen)
    assert sorted(seen["audit"]) == [1, 9, 10, 12]
    assert sorted(seen["heavy"]) == [10, 12]
    assert len(await memory_world.records("files")) == len(await memory_world.records("files.large")) == 2


async def test_what_a_handler_emits_is_routed_too(memory_world):
    splitting, heavy, sizes = Service("splitting"), Service("heavy"), []

    @splitting.on(FileSplit)
    async def split(file: FileSplit) -> list[FileArrived]:
        return [FileArrived(tenant=file.tenant, size=size) for size in (1, 20)]

    @heavy.on(LargeFile)
    async def work(file: LargeFile) -> None:
        sizes.append(file.size)

    async with memory_world.running(splitting, heavy):
        await memory_world.publish(FileSplit(tenant="t"))
        await eventually(lambda: sizes == [20], lambda: sizes)
    assert [record.key for record in await memory_world.records("files")] == [b"t"]


async def test_a_route_that_names_a_strange_topic_makes_a_dead_letter(memory_world):
    service = Service("losing")

    @service.on(FileSplit)
    async def lose(file: FileSplit) -> Lost:
        return Lost(tenant=file.tenant)

    async with memory_world.running(service):
        await memory_world.publish(FileSplit(tenant="t"))
        await memory_world.read_to_the_end(service)
    ((headers, _),) = await memory_world.letters("losing")
    assert "the route of event Lost named topic 'nowhere'" in headers["__dlq.errors.message"]

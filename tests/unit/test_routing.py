import pytest

from choreo import DeclarationError, Event, route
from choreo.cli import publish
from choreo.errors import EncodeError
from choreo.events import Metadata, origin_of
from choreo.wire import Codec, open_registry

META = Metadata("e1", "FileArrived", "web", "2026-11-22T08:00:00Z", "e1")


def pool(file):
    if file.size < 0:
        raise ValueError("no size")
    return {0: "nowhere"}.get(file.size) or ("files.large" if file.size > 9 else "files")


class FileArrived(Event, topic=route(pool, among=("files", "files.large")), key="tenant"):
    tenant: str
    size: int


class LargeFile(FileArrived, topic="files.large", key="tenant", name="FileArrived"):
    pass


@pytest.fixture
async def codec(tmp_path):
    made = Codec(open_registry(str(tmp_path)))
    await made.prepare(writes=[FileArrived], reads=[])
    return made


def test_the_contract_names_all_topics():
    assert FileArrived.contract.topics == ("files", "files.large")
    assert FileArrived.contract.choose is pool
    assert LargeFile.contract.topics == ("files.large",)
    assert LargeFile.contract.choose is None


def test_a_view_knows_what_it_is_a_view_of():
    assert origin_of(LargeFile) is origin_of(FileArrived) is FileArrived


def test_a_name_means_the_event_and_not_a_view_of_it(monkeypatch):
    monkeypatch.setattr(publish, "event_classes", lambda _: [LargeFile, FileArrived])
    assert publish._class("FileArrived", []) is FileArrived


@pytest.mark.parametrize(("size", "topic"), [(9, "files"), (10, "files.large")])
async def test_each_event_goes_where_its_route_says(codec, size, topic):
    record = codec.encode(FileArrived(tenant="t", size=size), META)
    assert (record.topic, record.key) == (topic, b"t")


async def test_a_topic_that_is_not_among_its_own_is_refused(codec):
    with pytest.raises(
        EncodeError, match=r"route of event FileArrived named topic 'nowhere': it is not among files, files.large"
    ):
        codec.encode(FileArrived(tenant="t", size=0), META)


async def test_a_route_that_fails_is_named(codec):
    with pytest.raises(EncodeError, match=r"the route of event FileArrived failed: ValueError: no size"):
        codec.encode(FileArrived(tenant="t", size=-1), META)


async def test_the_contract_is_kept_for_every_topic(codec, tmp_path):
    assert (tmp_path / "files" / "FileArrived.avsc").read_text() == (
        tmp_path / "files.large" / "FileArrived.avsc"
    ).read_text()


@pytest.mark.parametrize("among", ["files", None, (), ("files",), ("files", "files")])
def test_a_route_without_a_choice_is_refused(among):
    with pytest.raises(DeclarationError, match=r"leaves no choice \(name two topics or more"):
        route(pool, among=among)


def test_a_route_that_is_no_function_is_refused():
    with pytest.raises(DeclarationError, match=r"route\('files'\) cannot be called"):
        route("files", among=("files", "files.large"))


@pytest.mark.parametrize("topic", ["no spaces", 7])
def test_an_illegal_topic_of_a_route_is_refused(topic):
    with pytest.raises(DeclarationError, match=rf"event .*Wrong names topic {topic!r}, which is no legal Kafka topic"):

        class Wrong(Event, topic=route(pool, among=("files", topic)), key="k"):
            k: str

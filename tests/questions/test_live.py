"""Questions beside a tracker at work: changes as they come, over the API and as server-sent events; and the past as it was noted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from choreo import Bus, Context, Event, Service, Settings, connect
from choreo.choreography import Choreography
from choreo.log.memory import MemoryLog
from choreo.observe.serving import served
from choreo.runtime.run import ensure_topics, running
from choreo.saga.questions import Questions
from choreo.saga.store import make_tracker_store
from choreo.saga.tracker import Tracker
from choreo.web.app import make_app
from choreo.wire import open_registry

TOKEN = "a-token-of-tests-only"  # noqa: S105 - opens nothing


class Asked(Event, topic="asked", key="name"):
    name: str


class Answered(Event, topic="answered", key="name", ends="completed"):
    name: str


desk = Service("live-desk")
post = Service("live-post")


@desk.on(Asked)
async def answer(asked: Asked, ctx: Context) -> Answered:
    return Answered(name=asked.name)


@post.on(Answered)
async def send(answered: Answered, ctx: Context) -> None:
    """A leaf."""


class Live(NamedTuple):
    questions: Questions
    bus: Bus
    log: MemoryLog
    settings: Settings


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A log in memory, a tracker that reads it, and nobody yet who handles anything."""
    settings = Settings(
        log="memory://", registry=str(tmp_path / "schemas"), store=f"sqlite:///{tmp_path}/{{service}}.db"
    )
    choreography = Choreography.of([desk, post])
    async with MemoryLog() as log, connect(settings, log=log, source="test") as bus:
        await ensure_topics(log, choreography.topics, create=True)
        store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
        await store.open()
        tracking = asyncio.create_task(Tracker(log, store, choreography.graph).run())
        try:
            yield Live(Questions(store, log, open_registry(settings.registry), choreography.graph), bus, log, settings)
        finally:
            tracking.cancel()
            with suppress(asyncio.CancelledError):
                await tracking
            await store.close()


@asynccontextmanager
async def at_work(live: Live) -> AsyncIterator[None]:
    async with running([desk, post], live.settings, log=live.log):
        yield


async def test_changes_come_as_they_come_and_a_stream_is_resumed(live: Live) -> None:
    changes = live.questions.watch("type = Asked", interval=0.02)
    coming = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    saga = await live.bus.publish(Asked(name="a"))
    async with asyncio.timeout(20):
        first = await coming
        assert (first.summary.saga, first.summary.state, first.new) == (saga, "running", True)
        async with at_work(live):
            async for change in changes:
                assert not change.new
                if change.summary.state == "completed":
                    break
    await changes.aclose()
    again = live.questions.watch("type = Asked", after=first.id, interval=0.02)
    async with asyncio.timeout(20):
        assert (await anext(again)).summary.state == "completed"
    await again.aclose()


async def test_what_does_not_fit_is_not_told(live: Live) -> None:
    changes = live.questions.watch("key = b", interval=0.02)
    coming = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await live.bus.publish(Asked(name="a"))
    saga = await live.bus.publish(Asked(name="b"))
    async with asyncio.timeout(20):
        assert (await coming).summary.saga == saga
    await changes.aclose()


async def test_server_sent_events(live: Live) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with (
        served(make_app(live.questions, TOKEN), "127.0.0.1", 0) as port,
        httpx2.AsyncClient(headers=headers) as client,
    ):
        url = f"http://127.0.0.1:{port}/api/v1/watch"
        assert (await client.get(url, params={"filter": "x ="})).status_code == 400
        assert (await client.head(url)).headers["content-type"].startswith("text/event-stream")
        async with asyncio.timeout(30), at_work(live):
            async with client.stream("GET", url, params={"filter": "type = Asked"}) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = stream.aiter_lines()
                assert await anext(lines) == "retry: 1000"
                saga = await live.bus.publish(Asked(name="a"))
                id_, data = await _event(lines)
                assert data["saga"] == saga
                while data["state"] != "completed":
                    id_, data = await _event(lines)
            async with client.stream("GET", url, headers={"last-event-id": id_}) as stream:
                _, data = await _event(stream.aiter_lines())
                assert (data["saga"], data["state"]) == (saga, "completed")


async def _event(lines: AsyncIterator[str]) -> tuple[str, dict]:
    id_ = ""
    async for line in lines:
        if line.startswith("id: "):
            id_ = line[4:]
        elif line.startswith("data: "):
            return id_, json.loads(line[6:])
    raise AssertionError("the stream has ended")


async def _until(live: Live, saga: str, state: str) -> None:
    """Wait until the tracker has found the saga to be so."""
    async with asyncio.timeout(20), aclosing(live.questions.watch(f"id = {saga}", after="1", interval=0.02)) as changes:
        async for change in changes:
            if change.summary.state == state:
                return


async def test_the_past_is_as_it_was_though_commits_were_later(live: Live) -> None:
    saga = await live.bus.publish(Asked(name="a"))
    await _until(live, saga, "running")
    before = await live.questions.show(saga)
    async with at_work(live):
        await _until(live, saga, "completed")
    then = await live.questions.show(saga, as_of=before.now_ms)
    assert [event.type for event in then.saga.events] == ["Asked"]
    now = await live.questions.show(saga)
    assert (now.saga.state, [event.type for event in now.saga.events]) == ("completed", ["Asked", "Answered"])


async def test_why_tells_that_nobody_is_there_and_then_that_somebody_is(live: Live) -> None:
    saga = await live.bus.publish(Asked(name="a"))
    await _until(live, saga, "running")
    _, sentences = await live.questions.why(saga)
    assert "Nobody is in group live-desk, so nothing is handled there." in sentences
    assert "Next: start it, choreo run MODULE:live-desk" in sentences
    shown = await live.questions.show(saga)
    group = (await live.questions.groups(shown.saga))["live-desk"]
    assert (group.members, group.lag) == (0, 1)
    async with at_work(live):
        assert (await live.questions.groups(shown.saga))["live-desk"].members == 1

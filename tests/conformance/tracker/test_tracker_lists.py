"""Lists: any filter says the same as it says of each saga; pages follow each other without a gap."""

from __future__ import annotations

import random

import pytest

from choreo.errors import ConfigurationError
from choreo.saga.filter_text import parse
from choreo.saga.filters import EVERY, at_moment, matches
from choreo.saga.store import Page, Summary, TrackerStore, paging
from choreo.wire.ids import new_event_id
from tests.conformance.tracker.sagas import ORDERS, event, filled, fold, put, summary

FILTERS = [
    "", "state = stuck", "not state = stuck", "state != stuck and type = OrderPlaced", "type contains placed",
    "service = payments", "service != payments", "not has handler", "handler = stock.reserve or state = failed",
    "outcome = completed", "outcome != completed", "has outcome", "key = o-17", "key contains O-1", "not key contains 1",
    "id contains -", "error contains TIMEOUT", 'error = ""', "has error", "not has error", 'error contains ""',
    "duration > 5s", "duration <= 10ms and state = completed", "started < 1970-01-01T00:00:20Z",
    "started >= 1970-01-01T00:00:20Z and started < 1970-01-01T00:00:30Z", "has ended", "ended > 1970-01-01T00:00:30Z",
    "not ended > 1970-01-01T00:00:30Z", "updated > 1970-01-01T00:00:30Z", "has parent", 'parent = "p-1"',
    'not parent = "p-1"', "parent contains P", "retries > 0", "retries >= 2 and has dead_letters", "owed = 0", "owed > 0 or retries = 3",
    "dead_letters < 1", "not (has owed or has retries)", "events > 7", "data.sku = a", "data.sku != a", "has data.sku",
    "data.n > 2", "data.n < 10", "not data.n > 2", "data.sku contains B", "data.other = 1 or state = running",
    "state = running and (service = stock or error contains timeout) and not duration < 1s", "retries >= 0", "retries < 5",
]  # fmt: skip


def made(number: int, rng: random.Random) -> tuple[Summary, dict[str, list[str]]]:
    started = rng.randrange(10, 40) * 1_000
    ended = rng.choice([None, started + rng.choice([0, 10, 400, 6_000, 70_000])])
    data = {"sku": [rng.choice("abAB")]} if rng.random() < 0.4 else {}
    if rng.random() < 0.4:
        data["n"] = [rng.choice(["1", "2.5", "30", "1e1", "x", "", " 7 ", "nan"])]
    return summary(
        rng.choice([new_event_id(), f"saga {number} ü"]),
        type=rng.choice(["OrderPlaced", "ReturnAsked"]), key=f"o-{number}",
        state=rng.choice(["running", "completed", "stuck", "failed"]), outcome=rng.choice([None, "completed", "failed"]),
        services=tuple(sorted(rng.sample(["payments", "stock", "mail"], rng.randrange(4)))),
        handlers=rng.choice([(), ("stock.reserve",)]), started_ms=started, updated_ms=started + rng.randrange(9_000),
        ended_ms=ended, events=rng.randrange(1, 12), retries=rng.choice([0, 0, 0, 1, 2, 3]),
        dead_letters=rng.choice([0, 0, 1]), owed=rng.choice([0, 0, 0, 1, 2]),
        error=rng.choice(["", "", "Timeout: no answer", "KeyError: 'x'"]), parent=rng.choice([None, None, "p-1", "p-2"]),
    ), data  # fmt: skip


def row(of: Summary, data: dict[str, list[str]]) -> dict:
    return {
        "state": of.state, "outcome": of.outcome, "type": of.type, "key": of.key, "id": of.saga, "parent": of.parent,
        "service": of.services, "handler": of.handlers, "error": of.error, "started": of.started_ms,
        "updated": of.updated_ms, "ended": of.ended_ms, "duration": of.duration_ms, "events": of.events,
        "retries": of.retries, "dead_letters": of.dead_letters, "owed": of.owed, "data": data,
    }  # fmt: skip


@pytest.mark.parametrize("few", [paging.FEW, 0], ids=["by index", "walked"])
async def test_any_filter_says_of_all_what_it_says_of_each(
    store: TrackerStore, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "FEW", few)
    monkeypatch.setattr(paging, "_FIRST", 7)
    rng = random.Random(20)
    sagas = [made(number, rng) for number in range(300)]
    await filled(store, *(each for each, _ in sagas))
    await store.take_over([ORDERS])
    values = [(name, value, each.saga) for each, data in sagas for name, some in data.items() for value in some]
    await store.add([], {}, values)
    for text in FILTERS:
        fits = at_moment(parse(text), 50_000)
        expected = {each.saga: each for each, data in sagas if matches(fits, row(each, data))}
        shown, after, pages = list[Summary](), None, 0
        while pages == 0 or after is not None:
            page: Page = await store.page(fits, limit=40, after=after)
            shown += page.rows
            after, pages = page.after, pages + 1
        assert len({each.saga for each in shown}) == len(shown), text
        assert {each.saga: each for each in shown} == expected, text
        assert [each.started_ms for each in shown] == sorted((each.started_ms for each in shown), reverse=True), text


async def test_pages_that_end_among_sagas_of_one_moment(store: TrackerStore) -> None:
    sagas = [summary(new_event_id(), started_ms=5_000) for _ in range(25)]
    await filled(store, *sagas)
    shown, after = [], None
    while True:
        page = await store.page(EVERY, limit=4, after=after)
        shown += page.rows
        after = page.after
        if after is None:
            break
    assert sorted(each.saga for each in shown) == sorted(each.saga for each in sagas)


async def test_newer_sagas_do_not_move_the_pages(store: TrackerStore) -> None:
    old = [summary(new_event_id(), started_ms=1_000 + number) for number in range(6)]
    await filled(store, *old)
    first = await store.page(EVERY, limit=3)
    newer = summary(new_event_id(), started_ms=9_000)
    await put(store, event(newer.saga, 50))
    await fold(store, newer)
    second = await store.page(EVERY, limit=3, after=first.after)
    assert [*first.rows, *second.rows] == old[::-1]


@pytest.mark.parametrize("after", ["", "x", "1", "1.zz", "9" * 30 + ".00", "1.00.00"])
async def test_a_page_that_nobody_named(store: TrackerStore, after: str) -> None:
    await filled(store, summary(new_event_id()))
    with pytest.raises(ConfigurationError, match="no page ends at"):
        await store.page(EVERY, after=after)

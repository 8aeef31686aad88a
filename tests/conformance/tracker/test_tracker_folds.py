"""What is marked stays so until a fold is kept that has seen everything; commits and time mark again."""

from __future__ import annotations

import asyncio

import pytest

from choreo.errors import FencedError
from choreo.saga.filters import EVERY
from choreo.saga.store import Count, Folded, Place, TrackerStore, Wait, make_tracker_store
from choreo.wire.ids import new_event_id
from tests.conformance.tracker.sagas import ORDERS, PAYMENTS, effect, event, filled, fold, letter, put, settled, summary


async def test_a_fold_takes_the_mark_away(store: TrackerStore) -> None:
    saga = new_event_id()
    await put(store, event(saga))
    assert await store.marked(10) == [saga]
    await fold(store, summary(saga))
    assert await store.marked(10) == []
    assert await store.summaries([saga, "another"]) == {saga: summary(saga)}


async def test_a_fold_that_has_not_seen_all_is_not_kept(store: TrackerStore) -> None:
    saga = new_event_id()
    await put(store, event(saga))
    begun = (await store.sightings([saga]))[saga]
    await put(store, effect(saga))
    await store.keep([Folded(summary(saga), begun.mark, ())])
    assert await store.summaries([saga]) == {}
    assert await store.marked(10) == [saga]
    await fold(store, summary(saga, events=2))
    await store.keep([Folded(summary(saga, events=1), begun.mark, ())])
    assert (await store.summaries([saga]))[saga].events == 2, "an older one comes too late"


@pytest.mark.needs("several_instances")
async def test_of_two_folds_at_once_the_last_has_seen_everything(store: TrackerStore, tracker_url: str) -> None:
    """Two instances read one saga's events from two partitions, each folds what it sees; in every order of their steps."""
    other = make_tracker_store(tracker_url)
    await other.open()

    async def see(mine: TrackerStore, seen) -> int:
        await put(mine, seen)
        return len((await mine.sightings([seen.saga]))[seen.saga].seen)

    async def read_and_fold(mine: TrackerStore, saga: str, seen, pause: int) -> None:
        await put(mine, seen)
        found = (await mine.sightings([saga]))[saga]
        for _ in range(pause):
            await asyncio.sleep(0)
        await mine.keep([Folded(summary(saga, events=len(found.seen)), found.mark, ())])

    try:
        for pause in range(40):
            saga = new_event_id()
            one = read_and_fold(store, saga, event(saga, pause), pause % 7)
            two = read_and_fold(other, saga, effect(saga, pause), pause // 7)
            await asyncio.gather(one, two)
            kept = await store.summaries([saga])
            left = await store.marked(10)
            assert (kept and kept[saga].events == 2) or left == [saga], "else somebody's event is nowhere"
            await fold(other, *[summary(saga, events=2)] * bool(left))
        # Forced: one has begun to fold, the other adds and folds, then the first comes back with what it knew.
        saga = new_event_id()
        await put(store, event(saga, 100))
        begun = (await store.sightings([saga]))[saga]
        assert await see(other, effect(saga, 100)) == 2
        await fold(other, summary(saga, events=2))
        await store.keep([Folded(summary(saga, events=1), begun.mark, ())])
        assert (await store.summaries([saga]))[saga].events == 2
        assert await store.marked(10) == []
    finally:
        await other.close()


@pytest.mark.needs("several_instances")
async def test_a_letter_and_its_resolution_meet_whoever_reads_them(store: TrackerStore, tracker_url: str) -> None:
    other = make_tracker_store(tracker_url)
    await other.open()
    try:
        for number in range(20):
            saga, name = new_event_id(), f"l-{number}"
            await store.take_over([letter(saga, name).place.of])
            dead, done = letter(saga, name, 2 * number), settled(name, 2 * number + 1)
            _, marked = await asyncio.gather(store.add([dead], {}), other.add([done], {}))
            found = (await store.sightings([saga]))[saga]
            assert marked == [saga] or done in found.seen
            await fold(store, summary(saga))
    finally:
        await other.close()


async def test_a_commit_marks_who_has_waited_for_it(store: TrackerStore) -> None:
    saga, other = new_event_id(), new_event_id()
    await put(store, event(saga, 7), event(other, 8))
    await fold(store, summary(saga), waits=(Wait("payments", ORDERS, 7), Wait("mail", ORDERS, 7)))
    await fold(store, summary(other), waits=(Wait("payments", ORDERS, 8),))
    assert await store.waited_for() == {"payments": {ORDERS}, "mail": {ORDERS}}
    assert await store.advance({("payments", ORDERS): 7}, 1_000) == []
    assert await store.advance({("payments", ORDERS): 8, ("payments", PAYMENTS): 90}, 2_000) == [saga]
    assert await store.marked(10) == [saga]
    assert await store.advance({("payments", ORDERS): 8}, 2_500) == []
    assert await store.committed() == {("payments", ORDERS): 8, ("payments", PAYMENTS): 90}
    await fold(store, summary(saga, state="completed"))
    assert await store.waited_for() == {"payments": {ORDERS}}, "it waits for mail no more"
    assert await store.advance({("payments", ORDERS): 9, ("mail", ORDERS): 100}, 3_000) == [other]


async def test_who_begins_to_wait_for_what_has_come_is_marked_at_the_next_look(store: TrackerStore) -> None:
    saga = new_event_id()
    await put(store, event(saga, 7))
    await store.advance({("payments", ORDERS): 8}, 1_000)
    await fold(store, summary(saga), waits=(Wait("payments", ORDERS, 7),))
    assert await store.advance({("payments", ORDERS): 8}, 1_500) == [saga]


async def test_what_was_marked_before_the_store_was_opened_again_is_folded_all_the_same(tracker_url: str) -> None:
    store, sagas = make_tracker_store(tracker_url), [new_event_id() for _ in range(3)]
    await store.open()
    for saga in sagas:  # each in a round of its own: marks grow
        await put(store, event(saga, 7))
        await store.sightings([saga])
    await store.close()
    again = make_tracker_store(tracker_url)
    await again.open()
    try:
        for saga in await again.marked(10):
            await fold(again, summary(saga))
        assert await again.marked(10) == []
    finally:
        await again.close()


async def test_time_marks_once(store: TrackerStore) -> None:
    soon, later = new_event_id(), new_event_id()
    await filled(store, summary(soon, changes_ms=5_000), summary(later, changes_ms=9_000))
    assert await store.due(4_999, 10) == []
    assert await store.due(5_000, 10) == [soon]
    assert await store.due(5_000, 10) == []
    assert await store.marked(10) == [soon]
    assert sorted(await store.due(9_000, 10)) == [later]


async def test_sagas_are_counted_by_what_they_are_now(store: TrackerStore) -> None:
    sagas = [new_event_id() for _ in range(5)]
    await filled(store, *(summary(saga) for saga in sagas))
    assert await store.counts() == [Count("OrderPlaced", "running", None, 5)]
    await put(store, *(effect(saga, number) for number, saga in enumerate(sagas)))
    done = [summary(saga, state="completed", outcome="completed", ended_ms=3_000) for saga in sagas[:2]]
    await fold(store, *done)
    counts = [Count("OrderPlaced", "completed", "completed", 2), Count("OrderPlaced", "running", None, 3)]
    assert await store.counts() == counts


async def test_durations_of_those_that_have_ended(store: TrackerStore) -> None:
    made = [
        summary(new_event_id(), started_ms=1_000, updated_ms=1_000 + 10 * number, ended_ms=1_000 + 10 * number)
        for number in range(1, 101)
    ]
    await filled(store, *made, summary(new_event_id(), updated_ms=10**9))
    low, middle, high = await store.durations("OrderPlaced", [0.05, 0.5, 0.99])
    assert 40 <= low <= 70
    assert 490 <= middle <= 520
    assert high >= 990
    assert await store.durations("Nothing", [0.5]) == []


async def test_commits_are_remembered_and_thinned(store: TrackerStore) -> None:
    hour, day = 3_600_000, 86_400_000
    now = 100 * day
    await put(store, event(new_event_id()))
    times = [now - 3 * day, now - 3 * day + 60_000, now - 2 * hour, now - 2 * hour + 10, now - 10, now]
    times = [each // 1000 * 1000 + number for number, each in enumerate(times)]
    for offset, at_ms in enumerate(times):
        await store.advance({("payments", ORDERS): offset}, at_ms)
    assert [each.offset for each in await store.commits("payments", ORDERS)] == list(range(6))
    assert [each.offset for each in await store.commits("payments", ORDERS, since=times[4])] == [4, 5]
    assert [each.offset for each in await store.commits("payments", ORDERS, since=times[4] - 1)] == [3, 4, 5]
    await store.thin(now)
    assert [each.offset for each in await store.commits("payments", ORDERS)] == [1, 3, 4, 5]
    assert await store.commits("nobody", ORDERS) == []


async def test_an_old_saga_that_needs_somebody_is_not_forgotten(store: TrackerStore) -> None:
    dead, owing, done = new_event_id(), new_event_id(), new_event_id()
    await put(store, event(dead), event(owing, 1), event(done, 2))
    await fold(
        store,
        summary(dead, updated_ms=1_000, state="failed", dead_letters=1),
        summary(owing, updated_ms=1_000, state="compensating", owed=1),
        summary(done, updated_ms=1_000, state="completed"),
    )
    assert await store.expire(9_000, 10) == 1
    assert set(await store.summaries([dead, owing, done])) == {dead, owing}


async def test_old_sagas_are_forgotten_with_all_that_was_seen_of_them(store: TrackerStore) -> None:
    old, new = new_event_id(), new_event_id()
    await put(
        store, event(old), effect(old, 1, event_id="hook"), letter(old, "l-old"), settled("l-old"), event(new, 5),
        letter(new, "l-new", 7), settled("l-new", 8),
    )  # fmt: skip
    await fold(store, summary(old, updated_ms=1_000), waits=(Wait("payments", ORDERS, 0),))
    await fold(store, summary(new, updated_ms=9_000))
    assert await store.expire(9_000, 10) == 1
    assert await store.expire(9_000, 10) == 0
    assert set(await store.sightings([old, new])) == {new}
    assert await store.summaries([old]) == {}
    assert await store.sagas_of("hook") == []
    assert await store.saga_of_letter("l-old") == []
    assert await store.waited_for() == {}
    assert [each.sagas for each in await store.counts()] == [1]
    assert settled("l-new", 8) in (await store.sightings([new]))[new].seen
    await put(store, letter(old, "l-old", 20))
    assert [each.kind for each in (await store.sightings([old]))[old].seen] == ["letter"], "nothing of it was left"


async def test_words_about_itself(store: TrackerStore) -> None:
    await store.note("behind", "1")
    await store.note("behind", "2")
    assert await store.notes() == {"behind": "2"}


async def test_a_rebuilt_store_takes_the_place_of_one_that_is_in_use(store: TrackerStore, tracker_url: str) -> None:
    old, new = new_event_id(), new_event_id()
    await put(store, event(old, type_name="Old"), effect(old))
    await fold(store, summary(old))
    reader = make_tracker_store(tracker_url)
    await reader.open(reads_only=True)
    rebuilt = make_tracker_store(tracker_url).beside()
    await rebuilt.open()
    await put(rebuilt, effect(new, 4), event(new, 9, type_name="New"))
    await fold(rebuilt, summary(new))
    assert set(await reader.sightings([old, new])) == {old}
    await make_tracker_store(tracker_url).replace(rebuilt)
    assert {each.type_name for each in (await reader.sightings([old, new]))[new].seen} == {"New", "PaymentCharged"}
    assert [each.saga for each in (await reader.page(EVERY)).rows] == [new]
    with pytest.raises(FencedError):
        await store.add([event(old, 10)], {ORDERS: Place(11, 0)})
    assert await store.take_over([ORDERS]) == {ORDERS: 10}
    await store.add([event(new, 10, type_name="Later")], {ORDERS: Place(11, 0)})
    assert {each.type_name for each in (await reader.sightings([new]))[new].seen} == {"New", "PaymentCharged", "Later"}
    await reader.close()


async def test_what_is_to_be_folded_and_what_time_will_change_is_not_forgotten(store: TrackerStore) -> None:
    """An event that has come to an old saga a moment ago is in the store, but not yet in its summary."""
    fresh, armed, old = new_event_id(), new_event_id(), new_event_id()
    await put(store, event(fresh), event(armed, 1), event(old, 2))
    await fold(store, *(summary(saga, updated_ms=1_000) for saga in (fresh, old)))
    await fold(store, summary(armed, updated_ms=1_000, changes_ms=90_000))
    await put(store, effect(fresh))
    await store.expire(9_000, 10)
    assert (await store.summaries([fresh, armed, old])).keys() == {fresh, armed}
    assert len((await store.sightings([fresh]))[fresh].seen) == 2
    assert await store.marked(10) == [fresh]
    assert sum(count.sagas for count in await store.counts()) == 2


async def test_a_fold_that_does_not_know_of_a_commit_waits_for_it_all_the_same(store: TrackerStore) -> None:
    """Another instance has noticed it, or one that was killed before it could fold."""
    saga, waits = new_event_id(), (Wait("payments", ORDERS, 0),)
    await put(store, event(saga))
    await fold(store, summary(saga), waits=waits)
    assert await store.advance({("payments", ORDERS): 1}, 5_000) == [saga]
    await fold(store, summary(saga), waits=waits)
    assert await store.waited_for() == {"payments": {ORDERS}}
    assert await store.advance({("payments", ORDERS): 1}, 6_000) == [saga]
    await fold(store, summary(saga))
    assert await store.waited_for() == {}


@pytest.mark.needs("several_instances")
async def test_a_saga_is_forgotten_as_a_whole_or_not_at_all(store: TrackerStore, tracker_url: str) -> None:
    """One instance forgets, another one adds and folds, in every order of their steps."""
    other = make_tracker_store(tracker_url)
    await other.open()

    async def add(saga: str, offset: int, pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        await put(other, effect(saga, offset))
        await fold(other, summary(saga, updated_ms=20_000))

    try:
        for pause in range(30):
            saga = new_event_id()
            await put(store, event(saga, pause))
            await fold(store, summary(saga, updated_ms=1_000))
            await asyncio.gather(store.expire(9_000, 10), add(saga, pause, pause))
            assert (await store.sightings([saga]))[saga].seen[-1].type_name == "PaymentCharged", (
                "it is nowhere any more"
            )
            assert await store.marked(10) == []
            assert (await store.summaries([saga]))[saga].updated_ms == 20_000
    finally:
        await other.close()

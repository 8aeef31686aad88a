"""What every store promises (choreo/store/port.py)."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from choreo.errors import ConfigurationError, CopyError, FencedError, StoreError, StoreOwnedError
from choreo.store import Effects, Store
from tests.conformance.store.member import ROWS
from tests.conformance.store.world import P0, P1, P2, SERVICE, TABLES, World, emitted, key, own, progress

ROOT = Path(__file__).parents[3]


def member(world: World, command: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "tests.conformance.store.member", command, world.url, world.placeholder]
    return subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_a_store_is_opened_again_by_its_service_with_all_it_holds(world):
    first = await world.open()
    await world.write(first, ["a"], Effects({}))
    await first.close()
    await world.open()
    assert await world.notes() == ["a"]


async def test_another_service_is_refused_with_both_names_and_the_remedy(world, store):
    with pytest.raises(StoreOwnedError) as refusal:
        await world.open("shipping", "CREATE TABLE parcels (id TEXT)")
    assert "'payments'" in str(refusal.value)
    assert "'shipping'" in str(refusal.value)
    assert "CHOREO_STORE" in str(refusal.value)
    await world.write(store, ["still works"], Effects({}))
    with pytest.raises(Exception, match="parcels"):
        await world.ask("SELECT * FROM parcels")


async def test_of_two_services_that_open_a_new_store_at_once_one_wins(world):
    stores = [world.make() for _ in range(2)]
    outcomes = await asyncio.gather(
        *(each.open(name, TABLES) for each, name in zip(stores, ["payments", "shipping"], strict=True)),
        return_exceptions=True,
    )
    assert sorted(type(outcome) for outcome in outcomes if outcome) == [StoreOwnedError]
    assert outcomes.count(None) == 1


@pytest.mark.needs("several_processes")
async def test_several_processes_open_a_new_store_at_once(world):
    members = [member(world, "open") for _ in range(3)]
    for each in members:
        assert await asyncio.to_thread(each.stdout.readline) == "ready\n"
    for each in members:
        each.stdin.write("go\n")
        each.stdin.flush()
    outcomes = [await asyncio.to_thread(each.communicate) for each in members]
    assert [each.returncode for each in members] == [0, 0, 0], outcomes
    assert await world.notes() == []


async def test_many_instances_open_a_new_store_at_once(world):
    await asyncio.gather(*(world.open() for _ in range(8)))
    assert await world.notes() == []


async def test_tables_that_cannot_be_made_leave_nothing_behind(world):
    with pytest.raises(ConfigurationError) as refusal:
        await world.open(tables="CREATE TABLE half (id TEXT); CREATE TABLE oops (")
    assert "'payments'" in str(refusal.value)
    await world.open(tables="CREATE TABLE half (id TEXT)")


async def test_closing_twice_or_unopened_is_fine(world, store):
    await store.close()
    await store.close()
    await world.make().close()


# --- ownership --------------------------------------------------------------------------------------------------------


async def test_a_new_partition_has_no_progress_and_each_owner_a_higher_epoch(world, store):
    taken, left, _ = await store.take_over([P0, P1])
    assert {at: (known.watermark, known.done) for at, known in taken.items()} == {P0: (-1, ()), P1: (-1, ())}
    assert left == []
    again = (await (await world.open()).take_over([P1])).progress
    assert again[P1].epoch > taken[P1].epoch


async def test_progress_comes_back_with_its_holes(world, store):
    epoch = await own(store, P0, P1)
    done = (12, 13, 14, 20, 2**40)
    await store.commit(Effects({P0: progress(epoch, 10, done), P1: progress(epoch, 3)}))
    taken = (await (await world.open()).take_over([P0, P1])).progress
    assert taken[P0][:2] == (10, done)
    assert taken[P1][:2] == (3, ())


async def test_a_fenced_commit_changes_nothing(world, store):
    epoch = await own(store, P0, P1)
    row = await store.commit(Effects({P0: progress(epoch, 1), P1: progress(epoch, 1)}, [key(1)], emitted(b"old")))
    await own(await world.open(), P0)

    effects = Effects({P1: progress(epoch, 9), P0: progress(epoch, 9)}, [key(2)], emitted(b"new"), [row])
    with pytest.raises(FencedError) as fenced:
        await world.write(store, ["zombie"], effects)
    assert fenced.value.partitions == (P0,)
    assert not store.in_transaction
    assert await world.notes() == []
    assert await store.seen([key(1), key(2)]) == {key(1)}
    assert await world.leftovers(P1) == [b"old"], "neither ticked nor followed by a new one"
    taken = (await (await world.open()).take_over([P0, P1])).progress
    assert [known.watermark for known in taken.values()] == [1, 1]


async def test_a_fenced_instance_goes_on_with_what_it_still_owns(world, store):
    epoch = await own(store, P0, P1)
    await own(await world.open(), P0)
    with pytest.raises(FencedError):
        await world.write(store, ["a"], Effects({P0: progress(epoch)}))
    await world.write(store, ["b"], Effects({P1: progress(epoch)}))
    assert await world.notes() == ["b"]


async def test_an_owner_may_take_over_from_itself(store):
    old = await own(store, P0)
    new = await own(store, P0)
    with pytest.raises(FencedError):
        await store.commit(Effects({P0: progress(old)}))
    await store.commit(Effects({P0: progress(new)}))


# --- the outbox -------------------------------------------------------------------------------------------------------


async def test_a_new_owner_gets_what_touches_its_partitions_and_what_that_must_not_overtake(world, store):
    """Whoever gets "0 and 1" for the sake of P1 publishes records of P0 too: those before them must not come later."""
    epoch = await own(store, P0, P1, P2)
    both = {P0: progress(epoch), P1: progress(epoch)}
    ids = [
        await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"0"))),
        await store.commit(Effects({P2: progress(epoch)}, outbox=emitted(b"2"))),
        await store.commit(Effects(both, outbox=emitted(b"0 and 1"))),
        await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"0 again"))),
    ]
    assert ids == sorted(ids)
    left = (await (await world.open()).take_over([P0])).outbox
    assert [(row.row_id, row.records[0].value) for row in left] == [
        (ids[0], b"0"),
        (ids[2], b"0 and 1"),
        (ids[3], b"0 again"),
    ]
    assert await world.leftovers(P1) == [b"0", b"0 and 1"]
    assert await world.leftovers(P2) == [b"2"]


async def test_nobody_gets_back_what_waits_in_its_own_queue(store):
    epoch = await own(store, P0)
    await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"mine")))
    left = (await store.take_over([P0])).outbox
    assert left == []


async def test_a_ticked_row_vanishes_whoever_ticks_it(world, store):
    epoch = await own(store, P0)
    mine = await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"mine")))
    theirs = await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"taken over")))
    await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"stays")))
    await store.commit(Effects({}, ticked=[mine]))
    other = await world.open()
    left = (await other.take_over([P0])).outbox
    assert left[0].row_id == theirs
    await other.commit(Effects({}, ticked=[theirs]))
    await store.commit(Effects({}, ticked=[theirs]))
    assert await world.leftovers(P0) == [b"stays"]


async def test_row_ids_are_never_used_again(store):
    epoch = await own(store, P0)
    first = await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"a")))
    await store.commit(Effects({}, ticked=[first]))
    assert await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b"b"))) > first


async def test_there_is_a_row_only_if_something_was_emitted(store):
    epoch = await own(store, P0)
    assert await store.commit(Effects({P0: progress(epoch)}, [key(1)])) is None
    assert await store.commit(Effects({P0: progress(epoch)}, outbox=emitted(b""))) is not None


# --- the inbox --------------------------------------------------------------------------------------------------------


async def test_seen_knows_what_is_committed_also_while_a_transaction_is_open(world, store):
    await store.commit(Effects({}, [key(1), key(2)]))
    other = await world.open()
    await store.begin()
    await world.put(store, "open")
    assert await store.seen([key(1), key(3)]) == {key(1)}
    assert await other.seen([key(2), key(3)]) == {key(2)}
    await store.rollback()
    assert await store.seen([]) == set()


async def test_seen_takes_any_number_of_keys(store):
    await store.commit(Effects({}, [key(number) for number in range(0, 70_000, 7)]))
    asked = [key(number) for number in range(70_000)]
    assert await store.seen(asked) == {key(number) for number in range(0, 70_000, 7)}


async def test_a_key_that_another_instance_was_faster_with_undoes_the_whole_transaction(world, store):
    epoch = await own(store, P0)
    await (await world.open()).commit(Effects({}, [key(1)]))
    with pytest.raises(CopyError, match="another instance has handled a copy"):
        await world.write(store, ["twice"], Effects({P0: progress(epoch)}, [key(2), key(1)], emitted(b"twice")))
    assert not store.in_transaction
    assert await world.notes() == []
    assert await store.seen([key(2)]) == set()
    assert await world.leftovers(P0) == []


# --- transactions -----------------------------------------------------------------------------------------------------


async def test_nothing_is_there_before_the_commit_and_everything_after(world, store):
    epoch = await own(store, P0)
    assert not store.in_transaction
    await store.begin()
    assert store.in_transaction
    await world.put(store, "a")
    await store.commit(Effects({P0: progress(epoch, 5)}, [key(1)], emitted(b"out")))
    assert not store.in_transaction
    assert await world.notes() == ["a"]
    assert await world.leftovers(P0) == [b"out"]


@pytest.mark.parametrize("end", ["rollback", "close"])
async def test_what_is_not_committed_is_undone(world, store, end):
    await store.begin()
    await world.put(store, "a")
    await getattr(store, end)()
    assert await world.notes() == []


async def test_rollback_without_a_transaction_is_fine(store):
    await store.rollback()
    assert not store.in_transaction


async def test_a_savepoint_undoes_its_own_writes_and_nobody_elses(world, store):
    await store.begin()
    for name, keep in [("a", True), ("b", False), ("c", True), ("d", False)]:
        await store.savepoint()
        await world.put(store, name)
        await (store.release_savepoint() if keep else store.rollback_to_savepoint())
    await store.commit(Effects({}))
    assert await world.notes() == ["a", "c"]


async def test_a_handler_whose_statement_fails_harms_nobody(world, store):
    await store.begin()
    await store.savepoint()
    await world.put(store, "a")
    await store.release_savepoint()
    await store.savepoint()
    with pytest.raises(Exception, match=r"(?i)unique"):
        await world.put(store, "a")
    await store.rollback_to_savepoint()
    await store.savepoint()
    await world.put(store, "b")
    await store.release_savepoint()
    await store.commit(Effects({}))
    assert await world.notes() == ["a", "b"]


async def test_the_database_counts_and_fetches(world, store):
    mark = world.placeholder
    await store.begin()
    db = store.db
    insert = f"INSERT INTO notes VALUES ({mark}, {mark})"
    assert await db.execute(insert, ("a", "1")) == 1
    await db.execute_many(insert, ((name, "2") for name in "bc"))
    await db.execute_many(insert, [])
    assert await db.execute(f"UPDATE notes SET text = {mark}", ("x",)) == 3
    assert await db.fetch_one(f"SELECT text FROM notes WHERE id = {mark}", ("a",)) == ("x",)
    assert await db.fetch_one(f"SELECT text FROM notes WHERE id = {mark}", ("z",)) is None
    assert await db.fetch_all("SELECT id FROM notes ORDER BY id") == [("a",), ("b",), ("c",)]
    assert await db.fetch_all("SELECT id FROM notes WHERE id = 'z'") == []


async def test_numbered_parameters_are_understood_by_every_store(world, store):
    await store.begin()
    db = store.db
    assert await db.execute("INSERT INTO notes VALUES ($2, $1)", ("100 % or more?", "a")) == 1
    await db.execute_many("INSERT INTO notes VALUES ($1, $1)", (row for row in [("b",), ("c",)]))
    await db.execute_many("INSERT INTO notes VALUES ($1, $1)", [])
    assert await db.fetch_one("SELECT text FROM notes WHERE id = $1 AND text LIKE '100 %?'", ("a",)) is not None
    assert await db.fetch_all("SELECT id FROM notes WHERE text = $1 OR id = $1 OR id = $2", ("b", "c")) == [
        ("b",),
        ("c",),
    ]
    many = ", ".join(f"${number}" for number in range(1, 13))
    assert await db.fetch_one(f"SELECT count(*) FROM notes WHERE id IN ({many})", tuple("xyzuvwrstqpc")) == (1,)


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "commit;",
        "  \n\tEnd Transaction",
        "ROLLBACK",
        "-- done\nROLLBACK",
        "/* a */ /* b\n*/ ;; BEGIN IMMEDIATE",
        "SAVEPOINT mine",
        "RELEASE choreo_handler",
        "rollback to choreo_handler",
    ],
)
async def test_a_handler_cannot_end_or_nest_the_transaction(world, store, sql):
    await store.begin()
    await world.put(store, "a")
    for call in (
        store.db.execute(sql),
        store.db.execute_many(sql, []),
        store.db.fetch_one(sql),
        store.db.fetch_all(sql),
    ):
        with pytest.raises(StoreError, match=r"ctx\.db refuses [A-Z]+: .*leave it to choreo"):
            await call
    assert store.in_transaction
    await store.commit(Effects({}))
    assert await world.notes() == ["a"]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO notes VALUES ('rollback', 'commit; -- begin')",
        "/* commit */ INSERT INTO notes VALUES ('rollback', '')",
        "INSERT INTO notes SELECT 'rollback', 'COMMIT'",
    ],
)
async def test_words_of_transaction_control_elsewhere_are_fine(world, store, sql):
    await store.begin()
    await store.db.execute(sql)
    await store.commit(Effects({}))
    assert await world.notes() == ["rollback"]


# --- several at once --------------------------------------------------------------------------------------------------


async def test_two_instances_write_at_once(world):
    async def work(store: Store, at, name: str) -> None:
        epoch = await own(store, at)
        for number in range(40):
            await world.write(
                store, [f"{name}{number}"], Effects({at: progress(epoch, number + 1)}, outbox=emitted(b"x"))
            )

    await asyncio.gather(work(await world.open(), P0, "a"), work(await world.open(), P1, "b"))
    assert len(await world.notes()) == 80
    assert len(await world.leftovers(P0)) == len(await world.leftovers(P1)) == 40


async def test_waiting_for_another_writer_does_not_hold_up_the_event_loop(world, store):
    other = await world.open()
    await other.begin()
    await world.put(other, "a")
    waiting = asyncio.ensure_future(world.write(store, ["a"], Effects({})))
    for _ in range(50):
        await asyncio.sleep(0.001)  # the loop turns, though `store` waits
    assert not waiting.done()
    await other.rollback()
    await waiting
    assert await world.notes() == ["a"]


async def test_a_cancelled_wait_leaves_no_lock_behind(world, store):
    other = await world.open()
    await other.begin()
    await world.put(other, "a")
    waiting = asyncio.ensure_future(world.write(store, ["b", "a"], Effects({})))
    for _ in range(20):
        await asyncio.sleep(0.001)
    waiting.cancel()
    await other.rollback()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.rollback()  # as the runtime does
    assert not store.in_transaction
    await world.write(other, ["a"], Effects({}))
    await world.write(store, ["b"], Effects({}))
    assert await world.notes() == ["a", "b"]


async def test_a_cancelled_commit_is_whole_or_not_at_all(world, store):
    epoch = await own(store, P0)
    chance = random.Random(7)
    for number in range(30):
        names = [f"{number}-{row}" for row in range(3)]
        effects = Effects({P0: progress(epoch, number + 1)}, [key(number)], emitted(str(number).encode()))
        if number % 2:
            writing = asyncio.ensure_future(world.write(store, names, effects))
        else:
            await store.begin()
            for name in names:
                await world.put(store, name)
            writing = asyncio.ensure_future(store.commit(effects))
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
        await store.rollback()  # a cancelled handler's rows, as the runtime does
    notes = await world.notes()
    committed = sorted({int(name.split("-")[0]) for name in notes})
    assert len(notes) == 3 * len(committed)
    assert await store.seen([key(number) for number in range(30)]) == {key(number) for number in committed}
    assert sorted(int(row) for row in await world.leftovers(P0)) == committed
    assert committed, "some were cancelled too late"


@pytest.mark.needs("several_processes")
async def test_a_killed_process_leaves_whole_transactions_only(world):
    chance = random.Random(11)
    for _ in range(4):
        process = member(world, "write")
        try:
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
            await asyncio.sleep(chance.uniform(0, 0.05))  # not a wait for something: any moment will do
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)
        store = await world.open()
        taken, left, _ = await store.take_over([P0])
        count = taken[P0].watermark
        assert count > 0
        assert len(await world.notes()) == ROWS * count
        assert await store.seen([key(number) for number in range(count + 5)]) == {
            key(number) for number in range(count)
        }
        assert [int(row.records[0].value) for row in left] == list(range(count))
        notes = await store.notes([key(number) for number in range(count + 5)])
        assert list(notes) == [key(number) for number in range(count)]
        assert [note.number for note in notes[key(0)]] == list(range(count + 1))
        assert [timer.due_ms for timer in await store.due([P0], 2**53, 10)] == [count - 1]
        await store.close()


@pytest.mark.needs("several_processes")
async def test_the_service_of_a_killed_process_is_still_the_owner(world):
    process = member(world, "write")
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
    with pytest.raises(StoreOwnedError, match=SERVICE):
        await world.open("shipping")
    await world.open()

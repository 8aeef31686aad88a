"""What every store promises about notes: what a service has to remember of its sagas."""

from __future__ import annotations

import asyncio

import pytest

from choreo.errors import FencedError, OvertakenError, StoreUnavailableError
from choreo.log.port import Record
from choreo.store import Effects, NewNote, Note, Store, Timer
from tests.conformance.store.world import P0, P1, World, emitted, key, own, progress

A, B, C = key(1), key(2), key(3)


def new(at: bytes, number: int = 0, content: bytes = b"what", *, keep: int = 1_000, alone: bool = False) -> NewNote:
    return NewNote(at, Note(number, "done", content), keep, alone)


async def write(store: Store, *notes: NewNote, forgotten: tuple[bytes, ...] = ()) -> None:
    await store.commit(Effects({}, notes=notes, forgotten=forgotten))


async def numbers(store: Store, *keys: bytes) -> dict[bytes, list[int]]:
    return {at: [note.number for note in notes] for at, notes in (await store.notes(keys)).items()}


# --- writing and reading ----------------------------------------------------------------------------------------------


async def test_notes_come_back_as_they_were_in_order_and_keys_without_any_are_left_out(world, store):
    contents = [b"", b"\0\xff" * 300, b"x", bytes(100_000), "größer".encode()]
    kinds = ["done", "größe", 'quoted "\\,{}', "a\nb", ""]
    notes = [Note(number, kind, content) for number, (kind, content) in enumerate(zip(kinds, contents, strict=True))]
    await store.commit(Effects({}, notes=[NewNote(A, note, 2**45) for note in notes[:3]]))
    await store.commit(Effects({}, notes=[NewNote(B, notes[0], 0), *(NewNote(A, note, 7) for note in notes[3:])]))
    found = await (await world.open()).notes([C, B, A])
    assert found == {A: notes, B: notes[:1]}
    assert all(type(note) is Note and type(note.content) is bytes for note in found[A])
    await write(store, new(C, 0, b""), new(C, 1, b""))
    assert [note.content for note in (await store.notes([C]))[C]] == [b"", b""]
    assert await store.notes([]) == {}
    assert await store.notes([key(9)]) == {}


async def test_notes_of_many_keys_in_any_order_find_their_own_contents(store):
    keys = [key((number * 7919) % 1000) for number in range(1000)]
    await write(store, *(new(at, number, at * number) for number in range(3) for at in keys))
    found = await store.notes([*keys, *map(key, range(1000, 6000)), A, A])
    assert found == {at: [Note(number, "done", at * number) for number in range(3)] for at in keys}


async def test_notes_that_differ_in_everything_are_written_at_once(store):
    first = {key(at): Note(0, f"kind {at % 3}", bytes([at]) * (at % 4)) for at in range(40)}
    second = {at: Note(1, f"kind {number % 5}", at) for number, at in enumerate(first)}
    notes = [NewNote(at, first[at], number % 7 + 1) for number, at in enumerate(first)]
    notes += [NewNote(at, second[at], 100 - number % 6, number % 2 == 1) for number, at in enumerate(first)]
    await store.commit(Effects({}, notes=notes))
    expected = {at: [second[at]] if n % 2 else [first[at], second[at]] for n, at in enumerate(first)}
    assert await store.notes(list(first)) == expected
    after = b""
    while after := await store.expire_notes(97, after, 10):
        pass
    assert await store.notes(list(first)) == {at: expected[at] for n, at in enumerate(first) if 100 - n % 6 >= 97}


async def test_notes_are_read_while_others_write_and_only_what_is_committed(world, store):
    await write(store, new(A))
    other = await world.open()
    await other.begin()
    await world.put(other, "open")
    assert await numbers(store, A, B) == {A: [0]}
    assert await numbers(other, A, B) == {A: [0]}
    await other.commit(Effects({}, notes=[new(A, 1), new(B)]))
    assert await numbers(store, A, B) == {A: [0, 1], B: [0]}


async def test_notes_timers_progress_outbox_and_the_users_rows_are_there_together_or_not_at_all(world, store):
    epoch = await own(store, P0)
    timer = Timer(A, P0, 5, "expire", Record("orders", 0, 1, 2, b"k", b"v", []))
    effects = Effects({P0: progress(epoch, 5)}, [key(9)], emitted(b"out"), notes=[new(A), new(B)], timers=[timer])
    await store.begin()
    await world.put(store, "a")
    assert await store.notes([A, B]) == {}
    await store.rollback()
    assert await world.notes() == []
    assert await store.notes([A, B]) == {}
    assert await store.due([P0], 10, 10) == []

    await world.write(store, ["b"], effects)
    other = await world.open()
    assert await world.notes() == ["b"]
    assert await numbers(other, A, B) == {A: [0], B: [0]}
    assert await other.due([P0], 10, 10) == [timer]
    assert await other.watermarks([P0]) == {P0: 5}
    assert await world.leftovers(P0) == [b"out"]


async def test_a_fenced_commit_writes_and_forgets_nothing(world, store):
    epoch = await own(store, P0, P1)
    await write(store, new(A))
    timer = Timer(B, P0, 5, "expire", Record("orders", 0, 1, 2, b"k", b"v", []))
    await store.commit(Effects({}, timers=[timer]))
    await own(await world.open(), P0)
    both = {P0: progress(epoch), P1: progress(epoch)}
    for notes in ([new(B)], [new(B), new(A)], [new(A, 1, alone=True)]):
        late = timer._replace(timer_id=C)
        with pytest.raises(FencedError) as fenced:
            await store.commit(Effects(both, notes=notes, forgotten=[A], timers=[late], unset=[B]))
        assert fenced.value.partitions == (P0,)
    assert await numbers(store, A, B) == {A: [0]}
    assert await store.due([P0], 10, 10) == [timer]


# --- what is said no more ---------------------------------------------------------------------------------------------


async def test_a_note_that_says_all_takes_the_place_of_the_earlier_ones_of_its_key(store):
    await write(store, new(A), new(A, 1), new(A, 2), new(B), new(B, 1))
    await write(store, new(A, 3), new(A, 4, b"all", alone=True), new(C, 0, alone=True))
    assert await store.notes([A]) == {A: [Note(4, "done", b"all")]}
    assert await numbers(store, B, C) == {B: [0, 1], C: [0]}
    await write(store, new(A, 5), new(C, 1, alone=True), new(C, 2), new(B, 2, alone=True))
    assert await numbers(store, A, B, C) == {A: [4, 5], B: [2], C: [1, 2]}
    with pytest.raises(OvertakenError):
        await write(store, new(A, 4))


async def test_forgotten_keys_have_no_notes_those_of_the_same_transaction_included(store):
    await write(store, new(A), new(B), new(B, 1))
    await write(store, new(A, 1), new(C), forgotten=(A, key(77)))
    assert await numbers(store, A, B, C) == {B: [0, 1], C: [0]}
    await write(store, forgotten=(B, C, B))
    assert await store.notes([A, B, C]) == {}
    await write(store, new(A))
    assert await numbers(store, A) == {A: [0]}, "its numbers begin anew"


async def test_who_forgets_a_key_is_overtaken_by_a_note_it_has_not_read(world, store):
    await write(store, new(A))
    await write(await world.open(), new(A, 1))
    with pytest.raises(OvertakenError):
        await write(store, new(A, 1), forgotten=(A,))
    assert await numbers(store, A) == {A: [0, 1]}


# --- races ------------------------------------------------------------------------------------------------------------


async def test_a_number_that_is_taken_undoes_the_whole_transaction_and_is_named(world, store):
    epoch = await own(store, P0)
    await (await world.open()).commit(Effects({}, notes=[new(B, 0, b"first")]))
    timer = Timer(A, P0, 5, "expire", Record("orders", 0, 1, 2, b"k", b"v", []))
    effects = Effects({P0: progress(epoch)}, [key(9)], emitted(b"out"), notes=[new(A), new(B), new(C)], timers=[timer])
    with pytest.raises(OvertakenError) as overtaken:
        await world.write(store, ["second"], effects)
    assert B.hex() in str(overtaken.value)
    assert "note 0" in str(overtaken.value)
    assert not store.in_transaction
    with pytest.raises(OvertakenError):
        await store.commit(effects)
    assert await world.notes() == []
    assert await store.seen([key(9)]) == set()
    assert await store.notes([A, B, C]) == {B: [Note(0, "done", b"first")]}
    assert await store.due([P0], 10, 10) == []
    assert await world.leftovers(P0) == []
    await store.commit(Effects({}, notes=[new(A), new(B, 1)]))


@pytest.mark.parametrize("round_", range(5))
async def test_of_two_instances_that_decide_at_the_same_moment_one_does(world, round_):
    """Both have read that there is no note, and each is inside its transaction when it writes number 0."""
    stores = [await world.open(), await world.open()]
    assert [await store.notes([A]) for store in stores] == [{}, {}]

    async def decide(store: Store, name: str) -> None:
        await world.write(store, [name], Effects({}, notes=[new(A, 0, name.encode())]))

    outcomes = await asyncio.gather(
        *(decide(store, name) for store, name in zip(stores, "xy", strict=True)), return_exceptions=True
    )
    winner = "xy"[outcomes.index(None)]
    assert sorted(type(outcome) for outcome in outcomes if outcome) == [OvertakenError]
    assert await stores[0].notes([A]) == {A: [Note(0, "done", winner.encode())]}
    assert await world.notes() == [winner]


async def test_who_comes_second_is_overtaken_when_the_first_commits_and_not_when_it_gives_up(world, store):
    """The first has its note in the transaction already: the second waits inside its commit, if the store lets it."""
    other = await world.open()
    for number, gives_up in enumerate([False, True]):
        await store.begin()
        await world.put(store, f"first{number}")
        late = asyncio.ensure_future(other.commit(Effects({}, notes=[new(A, number)])))
        for _ in range(20):
            await asyncio.sleep(0.001)
        if gives_up:
            await store.rollback()
            await late
        else:
            (mine, theirs) = await asyncio.gather(
                store.commit(Effects({}, notes=[new(A, number)])), late, return_exceptions=True
            )
            assert [type(outcome) for outcome in (mine, theirs) if outcome is not None] == [OvertakenError]
    assert await numbers(store, A) == {A: [0, 1]}


@pytest.mark.needs("overlapping_transactions")
async def test_many_keys_in_opposite_orders_are_decided_once_each(world):
    """Whoever is overtaken, or could not wait, reads the notes again and decides anew, as the runtime does."""
    keys, rounds = [key(number) for number in range(30)], 25
    overtaken: list[str] = []

    async def work(store: Store, name: str, order: list[bytes]) -> dict[tuple[bytes, int], str]:
        mine = {}
        for round_ in range(rounds):
            while True:
                known = await store.notes(order)
                some = [at for at in order if len(known.get(at, [])) <= round_][:7]
                if not some:
                    break
                notes = [new(at, round_, name.encode()) for at in some]
                timers = [Timer(at, P0, round_, name, Record("orders", 0, 1, 2, b"k", b"v", [])) for at in some]
                try:
                    await store.commit(Effects({}, notes=notes, timers=timers))
                except (OvertakenError, StoreUnavailableError) as error:
                    assert not store.in_transaction
                    overtaken.append(type(error).__name__)
                else:
                    mine.update(dict.fromkeys([(at, round_) for at in some], name))
        return mine

    stores = [await world.open(), await world.open()]
    decided = await asyncio.gather(work(stores[0], "x", keys), work(stores[1], "y", keys[::-1]))
    assert len(decided[0]) + len(decided[1]) == rounds * len(keys), "none was decided twice"
    found = await stores[0].notes(keys)
    assert {(at, note.number): note.content.decode() for at, notes in found.items() for note in notes} == {
        **decided[0],
        **decided[1],
    }
    assert "OvertakenError" in overtaken, "they met"


# --- expiry -----------------------------------------------------------------------------------------------------------


async def clean(store: Store, before_ms: int, limit: int = 10) -> int:
    """Walk over all notes; returns the number of chunks."""
    after, chunks = b"", 0
    while True:
        after = await store.expire_notes(before_ms, after, limit)
        chunks += 1
        if not after:
            return chunks


async def test_a_keys_notes_go_as_a_whole_when_none_matters_any_more(store):
    keys = [key(number) for number in range(60)]
    await write(store, *(new(at, number, keep=100 + number) for at in keys for number in range(3)))
    await write(store, *(new(at, 3, keep=50) for at in keys[:30]), *(new(at, 3, keep=200) for at in keys[30:]))
    assert await clean(store, 102) == 7, "60 keys, 10 at a time, and the end"
    assert await numbers(store, *keys) == {at: [0, 1, 2, 3] for at in keys}
    await clean(store, 103)
    assert await numbers(store, *keys) == {at: [0, 1, 2, 3] for at in keys[30:]}
    await clean(store, 200)
    assert len(await store.notes(keys)) == 30
    await clean(store, 201)
    assert await store.notes(keys) == {}
    assert await store.expire_notes(10**13, b"", 10) == b""


async def test_notes_are_cleaned_beside_another_instances_work(world: World, store):
    await write(store, new(A, keep=1))
    other = await world.open()
    await world.write(other, ["a"], Effects({}, notes=[new(A, 1, keep=9), new(B, keep=1)]))
    await clean(store, 5, limit=1)
    assert await numbers(other, A, B) == {A: [0, 1]}


@pytest.mark.parametrize("known", [None, 0, 1, 2])
async def test_a_number_that_a_later_note_has_freed_is_not_taken_again(world, store, known):
    """Who decides from notes that others have gone beyond is refused, though nothing stands where it would write."""
    other = await world.open()
    for number in range(5):
        await write(other, new(A, number, alone=number > 0))
    stale = 0 if known is None else known + 1
    for alone in (False, True):
        with pytest.raises(OvertakenError):
            await write(store, new(A, stale, alone=alone))
    assert await numbers(store, A) == {A: [4]}
    await write(store, new(A, 5), new(A, 6, alone=True))
    assert await numbers(store, A) == {A: [6]}

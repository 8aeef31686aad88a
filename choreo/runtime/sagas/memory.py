"""What is known here of a saga: the notes of its store, and those that are about to be committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import cast
from weakref import ref

from choreo.store.port import NewNote, Note, Store

_note: Callable[[tuple[int, str, bytes]], Note] = partial(tuple.__new__, Note)  # thrice as fast as its own
_new_note: Callable[[tuple[bytes, Note, int, bool]], NewNote] = partial(tuple.__new__, NewNote)
_NO_NOTES: list[Note] = []
_ROOM = 1024


class Memory:
    """The notes of one key, as if everything pending were committed.

    Whoever is about to use it holds it, and so does what is pending: one that nobody holds is in the store as it is.

    Attributes:
        notes: in order; the last one may stand for all before it. Another list as soon as anything changes.
    """

    __slots__ = ("__weakref__", "_next", "key", "notes")

    def __init__(self, key: bytes, notes: list[Note]) -> None:
        self.key = key
        self.notes = notes
        self._next = notes[-1].number + 1 if notes else 0

    def add(self, kind: str, content: bytes, keep_ms: int, *, alone: bool = False) -> NewNote:
        """One more note, to be committed with what else its handler does."""
        number = self._next
        self._next = number + 1
        note = _note((number, kind, content))
        self.notes = [note] if alone else [*self.notes, note]
        return _new_note((self.key, note, keep_ms, alone and number > 0))

    def forget(self, number: int) -> None:
        """The notes from this number on are not written after all."""
        self.notes = [note for note in self.notes if note.number < number]
        self._next = number

    def last(self, kind: str) -> Note | None:
        """The last note of this kind."""
        return next((note for note in reversed(self.notes) if note.kind == kind), None)


_nobody = ref(Memory(b"", []))
"""A reference whose memory is gone."""


class Memories:
    """The memories that somebody holds, by key.

    Those that nobody holds any more are looked for now and then: told of each, as a WeakValueDictionary is, it would cost
    several times as much.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[bytes, ref[Memory]] = {}
        self._room = _ROOM
        self._reads = 0

    async def of(self, keys: Sequence[bytes]) -> list[Memory]:
        """The memory of each of these keys. Hold them as long as their events are under way.

        What two instances, or two reads beside each other, make of the same notes, is decided when they are committed.
        """
        found = self._known(keys)
        missing = list(dict.fromkeys([key for key, memory in zip(keys, found, strict=True) if memory is None]))
        if missing:
            read = await self._read(missing)
            found = [memory or read[key] for key, memory in zip(keys, found, strict=True)]
        return cast("list[Memory]", found)

    def _known(self, keys: Sequence[bytes]) -> list[Memory | None]:
        return [held() for held in map(self._held.get, keys, repeat(_nobody))]

    async def _read(self, missing: list[bytes]) -> dict[bytes, Memory]:
        """Memories that nobody holds; whoever gets them does, and until then nobody else lets them go."""
        reads = self._reads
        noted = await self._store.notes(missing)
        faster: dict[bytes, Memory] = {}
        if reads != self._reads:  # somebody else may have been faster
            known = zip(missing, self._known(missing), strict=True)
            faster = {key: memory for key, memory in known if memory is not None}
            missing = [key for key in missing if key not in faster]
        self._reads += 1
        made = dict(zip(missing, map(Memory, missing, map(noted.get, missing, repeat(_NO_NOTES))), strict=True))
        self._held.update(zip(missing, map(ref, made.values()), strict=True))
        self._make_room()
        return made | faster if faster else made

    def _make_room(self) -> None:
        if len(self._held) > self._room:
            self._held = {key: held for key, held in self._held.items() if held() is not None}
            self._room = max(_ROOM, 4 * len(self._held))

    async def is_outdated(self, memory: Memory) -> bool:
        """Whether the store has notes that are not known here: another instance has written them."""
        noted = (await self._store.notes([memory.key])).get(memory.key, [])
        return bool(noted) and noted[-1] not in memory.notes

    def forget(self) -> None:
        """What was pending has been undone: read everything again."""
        self._held.clear()

"""What the tracker's SQLite store writes, inside one transaction each.

Python's lock is let go whenever SQLite runs, and is hard to get back beside a busy consumer: so hundreds of rows are one
statement wherever there may be many.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgpack

from choreo.errors import FencedError
from choreo.log.port import TopicPartition
from choreo.saga.sighting import Settled, Sighting
from choreo.saga.store.packing import compact, event_key, is_stray, key_of, pack, saga_of
from choreo.saga.store.port import Folded, Place
from choreo.saga.store.rows import columns_of, kind_of
from choreo.store.sql import load_queries

Q = load_queries("choreo.saga.store.sqlite")
_ROWS = 500


class Ids:
    """The numbers of names, places and kinds, as far as they were needed. Numbers of a transaction that is undone are forgotten."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.names: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        self.places: dict[tuple[str, int], int] = {}
        self.partitions: dict[int, TopicPartition] = {}
        self.kinds: dict[tuple[str, ...], int] = {}

    def forget(self) -> None:
        """What was learnt may have been undone, or be another store's."""
        for known in (self.names, self.texts, self.places, self.partitions, self.kinds):
            known.clear()

    def name(self, text: str) -> int:
        """Of a type, a source or a group."""
        if text not in self.names:
            number = self._made("name", (text,))
            self.names[text], self.texts[number] = number, text
        return self.names[text]

    def place(self, at: tuple[str, int]) -> int:
        """Of a partition."""
        if at not in self.places:
            number = self._made("place", at)
            self.places[at[0], at[1]], self.partitions[number] = number, TopicPartition(*at)
        return self.places[at[0], at[1]]

    def kind(self, columns: tuple[str, ...]) -> int:
        """Of a kind of sagas."""
        if columns not in self.kinds:
            self.kinds[columns] = self._made("kind", columns)
        return self.kinds[columns]

    def _made(self, query: str, values: Sequence[Any]) -> int:
        return int(self._connection.execute(Q[query], values).fetchone()[0])


class Writing:
    """The transactions of one connection; whoever calls begins and ends them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.ids = Ids(connection)
        self.turn = self._above()
        """Grows whenever somebody begins to fold; above the marks that an earlier process has left."""
        self._marked: dict[bytes, int] = {}
        self._born = ""

    def _above(self) -> int:
        """A turn above all marks that there are."""
        ((last,),) = self._connection.execute(Q["last_mark"]).fetchall()
        return int(last) + 1

    def check(self) -> None:
        """Begin to write.

        Raises:
            FencedError: the store was rebuilt: what is known of it is of another one.
        """
        ((born,),) = self._connection.execute(Q["born"]).fetchall()
        known, self._born = self._born or born, born
        if known != born:
            self.turn = max(self.turn, self._above())
            raise FencedError([])

    def undone(self) -> None:
        """The transaction was undone."""
        self.ids.forget()
        self._marked.clear()

    # --- reading the log ------------------------------------------------------------------------------------------

    def own(self, partitions: Iterable[TopicPartition], owner: str) -> dict[TopicPartition, int]:
        """Take partitions over; where to read on."""
        return {at: self._one("own", (owner, self.ids.place(at)))[0] for at in partitions}

    def add(
        self,
        seen: Sequence[Sighting],
        progress: Mapping[TopicPartition, Place],
        data: Sequence[tuple[str, str, str]],
        owner: str,
    ) -> list[str]:
        """See `TrackerStore.add`."""
        ids, execute = self.ids, self._connection.execute
        moved = ((place.next, place.at_ms, ids.place(at), owner) for at, place in progress.items())
        if sum(execute(Q["read_on"], row).rowcount for row in moved) < len(progress):
            raise FencedError(list(progress))
        for text in {each.type_name for each in seen} | {each.source for each in seen}:
            ids.name(text)
        for at in {(each.place.topic, each.place.partition) for each in seen}:
            ids.place(at)
        settled: set[bytes] = set()
        rows = sorted(self._rows(seen, settled))
        self._many("see", rows)
        self._connection.executemany(Q["datum"], [(name, value, key_of(saga)) for name, value, saga in data])
        self.mark(settled.union(row[0] for row in rows))
        return [saga_of(key) for key in sorted(settled)]

    def _rows(self, seen: Sequence[Sighting], settled: set[bytes]) -> Iterator[tuple[bytes, int, int, bytes]]:
        """The rows of `sightings`; what else is to be written of a few is written."""
        places, names, keys = self.ids.places, self.ids.names, dict[str, bytes]()
        for each in seen:
            if each.kind == "settled":
                settled |= self._settle(each)
                continue
            key = keys.get(each.saga)
            if key is None:
                key = keys[each.saga] = key_of(each.saga)
            if is_stray(compact(each.event_id), key):
                self._connection.execute(Q["stray"], (key_of(each.event_id), key))
            if each.kind == "letter":
                self._connection.execute(Q["letter"], (each.said[0], key))  # type: ignore[index]
            yield pack(each, key, places, names)

    def _settle(self, seen: Sighting) -> set[bytes]:
        assert isinstance(seen.said, Settled)  # noqa: S101 - its kind says so
        row = pack(seen, b"", self.ids.places, self.ids.names)
        self._connection.execute(Q["settle"], (seen.said.of, *row[1:]))
        return {key for (key,) in self._connection.execute(Q["sagas_of_letter"], (seen.said.of,))}

    def mark(self, keys: Iterable[bytes]) -> None:
        """These sagas are to be folded (again)."""
        fresh = sorted(key for key in keys if self._marked.get(key, 0) < self.turn)
        self._many("mark", [(key, self.turn) for key in fresh])
        self._marked.update(dict.fromkeys(fresh, self.turn))

    # --- folding --------------------------------------------------------------------------------------------------

    def keep(self, folded: Sequence[Folded]) -> None:
        """See `TrackerStore.keep`."""
        by_key = {key_of(each.summary.saga): each for each in folded}
        for part in parts(sorted(by_key)):
            query = Q["marks"].format(keys=holes(len(part)))
            marks = dict(self._connection.execute(query, part))
            for key in part:
                if not 0 < marks.get(key, 0) <= by_key[key].mark:
                    del by_key[key]
        moved: Counter[int] = Counter()
        before = self._before(sorted(by_key), moved)
        rows = [self._row(key, each, before.get(key) or b"", moved) for key, each in sorted(by_key.items())]
        self._many("keep", rows)
        self._connection.executemany(Q["count"], [(number, kind) for kind, number in sorted(moved.items()) if number])
        self._connection.executemany(Q["unmark"], [(key, each.mark) for key, each in by_key.items()])
        for key in by_key:
            self._marked.pop(key, None)

    def _before(self, keys: Sequence[bytes], moved: Counter[int]) -> dict[bytes, bytes | None]:
        """What these sagas have waited for; they are no more of the kind that they were."""
        waits: dict[bytes, bytes | None] = {}
        for part in parts(keys):
            for key, kind, waited in self._connection.execute(Q["before"].format(keys=holes(len(part))), part):
                moved[kind] -= 1
                waits[key] = waited
        return waits

    def _row(self, key: bytes, each: Folded, waited: bytes, moved: Counter[int]) -> tuple[Any, ...]:
        kind = self.ids.kind(kind_of(each.summary))
        moved[kind] += 1
        now = sorted({(self.ids.name(wait.group), self.ids.place(wait.at), wait.offset) for wait in each.waits})
        waits = msgpack.packb(now) if now else b""
        if waits != waited and waited:
            gone = set(msgpack.unpackb(waited, use_list=False)).difference(now)
            self._connection.executemany(Q["unwatch"], [(*wait, key) for wait in sorted(gone)])
        if now:  # all: a commit that was noticed has taken some away, and this fold may not know of it
            self._connection.executemany(Q["watch"], [(*wait, key) for wait in now])
        return (*columns_of(each.summary, key, kind), waits or None)

    def advance(self, committed: Mapping[tuple[str, TopicPartition], int], at_ms: int) -> list[str]:
        """See `TrackerStore.advance`."""
        execute, concerned = self._connection.execute, set[bytes]()
        for (group, at), offset in committed.items():
            where = self.ids.name(group), self.ids.place(at)
            if execute(Q["commit"], (*where, offset)).rowcount:
                execute(Q["note_commit"], (*where, at_ms, offset))
            concerned |= {key for (key,) in execute(Q["passed"], (*where, offset)).fetchall()}
        self.mark(concerned)
        return [saga_of(key) for key in sorted(concerned)]

    def due(self, now_ms: int, limit: int) -> list[str]:
        """See `TrackerStore.due`."""
        keys = [key for (key,) in self._connection.execute(Q["due"], (now_ms, limit)).fetchall()]
        self.mark(keys)
        return [saga_of(key) for key in keys]

    # --- forgetting -----------------------------------------------------------------------------------------------

    def forget(self, before_ms: int, limit: int) -> int:
        """See `TrackerStore.expire`."""
        execute = self._connection.execute
        keys = [key for (key,) in execute(Q["old"], (before_ms, limit)).fetchall()]
        moved: Counter[int] = Counter()
        for key, waited in self._before(keys, moved).items():
            for wait in msgpack.unpackb(waited, use_list=False) if waited else ():
                execute(Q["unwatch"], (*wait, key))
        for key in keys:
            events = {msgpack.unpackb(row[3])[2] for row in execute(Q["sightings"].format(keys="?"), (key,))}
            self._connection.executemany(
                Q["forget_stray"], [(event_key(each), key) for each in events if is_stray(each, key)]
            )
            letters = execute(Q["letters_of"], (key,)).fetchall()
            self._connection.executemany(Q["forget_settled"], letters)
            for query in ("forget_sightings", "forget_data", "forget_mark", "forget_saga"):
                execute(Q[query], (key,))
            self._marked.pop(key, None)
        self._connection.executemany(Q["count"], [(number, kind) for kind, number in sorted(moved.items())])
        return len(keys)

    # --- statements -----------------------------------------------------------------------------------------------

    def _one(self, query: str, values: Sequence[Any]) -> tuple[Any, ...]:
        (row,) = self._connection.execute(Q[query], values).fetchall()
        return tuple(row)

    def _many(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for part in parts(rows):
            one = f"({holes(len(part[0]))})"
            statement = Q[query].replace("{rows}", ",".join([one] * len(part)))
            self._connection.execute(statement, list(chain.from_iterable(part)))


def parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """In parts of hundreds, the rest in powers of two: a handful of statements, which SQLite keeps prepared."""
    first, size = 0, _ROWS
    while first < len(rows):
        while size > len(rows) - first:
            size = 1 << ((len(rows) - first).bit_length() - 1)
        yield rows[first : first + size]
        first += size


def holes(count: int) -> str:
    """So many parameters."""
    return ",".join("?" * count)

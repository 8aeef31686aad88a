"""What the tracker's PostgreSQL store writes, as statements; each takes arrays, whose rows come in order of their keys.

Who locks several rows locks those of `dirty` first, by saga, and those of `kinds` last, by number: nobody waits in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack

from choreo.saga.sighting import Letter, Settled, Sighting
from choreo.saga.store.packing import compact, is_stray, key_of, pack
from choreo.saga.store.port import Folded
from choreo.saga.store.rows import COLUMNS, columns_of
from choreo.store.postgres.connection import Statement
from choreo.store.sql import load_queries

PACKAGE = "choreo.saga.store.postgres"
Q = {name: query.encode() for name, query in load_queries(PACKAGE).items()}
_TYPES = [
    "bytea",
    "bigint",
    "int",
    "bigint",
    "bigint",
    "bigint",
    "text",
    "int",
    "int",
    "int",
    "int",
    "text",
    "text",
    "text",
    "bigint",
    "bigint",
    "bytea",
]
_NAMES = [*COLUMNS.split(", "), "waits"]
KEEP = (
    f"INSERT INTO sagas ({', '.join(_NAMES)}) "
    f"SELECT * FROM unnest({', '.join(f'${n}::{kind}[]' for n, kind in enumerate(_TYPES, 1))}) "
    f"ON CONFLICT (saga) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}"
).encode()

Watched = tuple[int, int, int]


def seen(
    sightings: Sequence[Sighting], places: Mapping[tuple[str, int], int], names: Mapping[str, int]
) -> list[Statement]:
    """The statements that write sightings; those of sagas are marked by whoever runs them."""
    keys = {saga: key_of(saga) for saga in {each.saga for each in sightings if each.kind != "settled"}}
    rows = sorted(pack(each, keys[each.saga], places, names) for each in sightings if each.kind != "settled")
    strays = sorted(
        {(key_of(each.event_id), keys[each.saga]) for each in sightings
         if each.kind != "settled" and is_stray(compact(each.event_id), keys[each.saga])}
    )  # fmt: skip
    letters = sorted({(each.said.id, keys[each.saga]) for each in sightings if isinstance(each.said, Letter)})
    settled = [
        (each.said.of, *pack(each, b"", places, names)[1:]) for each in sightings if isinstance(each.said, Settled)
    ]
    written: dict[str, Sequence[Sequence[Any]]] = {"letters": letters, "settle": settled, "see": rows, "strays": strays}
    locks = sorted({letter for letter, *_ in (*letters, *settled)})
    first: list[Statement] = [(Q["lock_letters"], (locks,))] if locks else []
    return [*first, *((Q[query], arrays(some)) for query, some in written.items() if some)]


def arrays(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Rows as one array a column."""
    return [list(column) for column in zip(*rows, strict=True)]


class Kept:
    """What is to be written of sagas that were folded.

    Args:
        before: the kind of each and what it waited for, as the store has it.
        kinds: the numbers of their kinds now.
        waits: what they wait for now.
    """

    def __init__(
        self,
        folded: Mapping[bytes, Folded],
        before: Mapping[bytes, tuple[int, bytes | None]],
        kinds: Mapping[bytes, int],
        waits: Mapping[bytes, list[Watched]],
    ) -> None:
        self._moved: Counter[int] = Counter()
        self._rows: list[tuple[Any, ...]] = []
        self._watch: list[tuple[Any, ...]] = []
        self._unwatch: list[tuple[Any, ...]] = []
        for key, each in sorted(folded.items()):
            old_kind, old = before.get(key, (None, None))
            if old_kind is not None:
                self._moved[old_kind] -= 1
            self._moved[kinds[key]] += 1
            packed = msgpack.packb(waits[key]) if waits[key] else None
            if packed != old:
                self._unwatch += [(*wait, key) for wait in sorted(set(unpacked(old)).difference(waits[key]))]
            # All: a commit that another instance has noticed has taken some away, and this fold may not know of it.
            self._watch += [(*wait, key) for wait in waits[key]]
            self._rows.append((*columns_of(each.summary, key, kinds[key]), packed))

    def statements(self) -> list[Statement]:
        """In the order in which they are to be run."""
        keys = [row[0] for row in self._rows]
        found: list[Statement] = [(Q["forget_marks"], (keys,))]
        found += [
            (Q[query], arrays(rows)) for query, rows in (("unwatch", self._unwatch), ("watch", self._watch)) if rows
        ]
        found.append((KEEP, arrays(self._rows)))
        return [*found, *count(self._moved)]


def count(moved: Mapping[int, int]) -> list[Statement]:
    """How many sagas more or fewer there are of each kind."""
    rows = sorted((kind, number) for kind, number in moved.items() if number)
    return [(Q["count"], arrays(rows))] if rows else []


def unpacked(waits: bytes | None) -> list[Watched]:
    """What a saga waits for, as its row says."""
    return [tuple(wait) for wait in msgpack.unpackb(waits)] if waits else []

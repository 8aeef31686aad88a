"""Which outbox rows a new owner of partitions publishes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from choreo.store import records
from choreo.store.port import OutboxRow


def left_for(
    partitions: Iterable[Hashable], rows: Collection[tuple[int, Collection[Hashable], bytes]]
) -> list[OutboxRow]:
    """What touches these partitions, and before it what touches the others of those rows, and so on.

    A row is a transaction's, and may hold records of several partitions, which get different owners when theirs has died. Whoever
    publishes it for the sake of one partition must not publish those of another before what stands in earlier rows.

    Args:
        rows: all there are, oldest first: number, partitions its records were read from, packed records.
    """
    touched, left = set(partitions), list[OutboxRow]()
    for row_id, read_from, packed in reversed(list(rows)):
        if not touched.isdisjoint(read_from):
            touched.update(read_from)
            left.append(OutboxRow(row_id, records.emitted(packed)))
    return left[::-1]

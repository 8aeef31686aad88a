"""Consumer groups in the log's file: members of several processes bring it forward together."""

from __future__ import annotations

import copy
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence

from choreo.log.groups import Claim, Group, Member, Step
from choreo.log.port import TopicPartition
from choreo.log.sqlite.records import Topics


def monotonic_ms() -> int:
    """The clock of heartbeats: the same for all processes of the machine, and nobody can set it."""
    return time.monotonic_ns() // 1_000_000


def settle(
    connection: sqlite3.Connection, topics: Topics, group: str, member: int | None, subscription: Sequence[str]
) -> tuple[int, Step]:
    """See `EmbeddedLog.settle`. Whoever looks also removes the dead."""
    topics.partitions(connection, subscription)  # refuses unknown ones before anything is written
    before = _load(connection, group)
    state = copy.deepcopy(before)
    now = monotonic_ms()
    state.expel(now)
    if member not in state.members:
        member = _join(connection, state, group, subscription, now)
    subscribed = {topic for each in state.members.values() for topic in each.topics}
    step = state.settle(member, topics.partitions(connection, subscribed), now)
    _save(connection, group, before, state)
    return member, step


def release(connection: sqlite3.Connection, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
    """See `EmbeddedLog.release`."""
    _change(connection, group, lambda state: state.release(member, partitions))


def leave(connection: sqlite3.Connection, group: str, member: int) -> None:
    """See `EmbeddedLog.leave`."""
    _change(connection, group, lambda state: state.leave(member))


def heartbeat(connection: sqlite3.Connection, members: Collection[int]) -> None:
    """Show that these members live."""
    now = monotonic_ms()
    connection.executemany("UPDATE members SET seen = ? WHERE id = ?", [(now, member) for member in members])


def generations(connection: sqlite3.Connection) -> dict[str, int]:
    """The generation of each group: when one changes, its members should look."""
    return dict(connection.execute("SELECT name, generation FROM groups").fetchall())


def _change(connection: sqlite3.Connection, group: str, change: Callable[[Group], None]) -> None:
    before = _load(connection, group)
    state = copy.deepcopy(before)
    change(state)
    _save(connection, group, before, state)


def _join(connection: sqlite3.Connection, state: Group, group: str, topics: Sequence[str], now: int) -> int:
    row = (group, json.dumps(list(topics)), now)
    (member,) = connection.execute(
        "INSERT INTO members (group_name, topics, seen) VALUES (?, ?, ?) RETURNING id", row
    ).fetchone()
    state.join(member, topics, now)
    return int(member)


def _load(connection: sqlite3.Connection, group: str) -> Group:
    row = connection.execute("SELECT generation FROM groups WHERE name = ?", (group,)).fetchone()
    members = connection.execute("SELECT id, topics, seen FROM members WHERE group_name = ?", (group,)).fetchall()
    query = "SELECT topic, partition, member, generation, release_by FROM claims WHERE group_name = ?"
    claims = connection.execute(query, (group,)).fetchall()
    return Group(
        row[0] if row else 0,
        {id_: Member(frozenset(json.loads(topics)), seen) for id_, topics, seen in members},
        {TopicPartition(topic, partition): Claim(*claim) for topic, partition, *claim in claims},
    )


def _save(connection: sqlite3.Connection, group: str, before: Group, after: Group) -> None:
    if before.generation != after.generation:
        connection.execute("INSERT OR REPLACE INTO groups VALUES (?, ?)", (group, after.generation))
    gone = [(member,) for member in before.members if member not in after.members]
    connection.executemany("DELETE FROM members WHERE id = ?", gone)
    if before.claims != after.claims:
        connection.execute("DELETE FROM claims WHERE group_name = ?", (group,))
        rows = [(group, *partition, *claim) for partition, claim in after.claims.items()]
        connection.executemany("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?)", rows)

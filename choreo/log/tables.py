"""The tables of an embedded log: appending, reading and trimming records, and the state of consumer groups."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgpack

from choreo.errors import NotOwnerError, UnknownTopicError
from choreo.log.groups import SESSION_TIMEOUT, Group, Step
from choreo.log.partitioning import Limits, limits_of, not_owner, partition_of, unknown_partition
from choreo.log.port import NewRecord, Position, Record, Start, Topic, TopicPartition

SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")

_SHIFT = 40  # see `records` in schema.sql
_FETCH_BYTES = 16 * 1024 * 1024
_BITE_RECORDS, _BITE_BYTES = 1_000, 8 * 1024 * 1024


class Commit(NamedTuple):
    """Positions to commit, with what proves the right to: the member and the generation of each claim."""

    group: str
    member: int
    positions: dict[TopicPartition, tuple[Position, int]]


class Tables:
    """The tables as one connection sees them. Each method runs inside a transaction, and refuses before it writes.

    Args:
        connection: in SQLite's own autocommit mode (`isolation_level=None`).
        now: the clock of timestamps and retention, in milliseconds since the epoch.
        beat: the clock of heartbeats, in milliseconds: the same for all members, and nobody can set it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        beat: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self.connection, self._now, self._beat = connection, now, beat
        self._topics: dict[str, tuple[Limits, list[int]]] = {}  # topics neither change nor go
        self._turn = 0
        self._beaten, self._patient_until = self._beat(), 0

    def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """Create those that do not exist; returns their names."""
        created = []
        limits = [limits_of(topic) for topic in topics]
        for topic, (_, _, retention) in zip(topics, limits, strict=True):
            row = (topic.name, topic.partitions, json.dumps(dict(topic.settings)), retention)
            if self.connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?, ?)", row).rowcount:
                rows = [(topic.name, partition) for partition in range(topic.partitions)]
                self.connection.executemany("INSERT INTO partitions (topic, partition) VALUES (?, ?)", rows)
                created.append(topic.name)
        return created

    def topics(self) -> dict[str, Topic]:
        """All topics."""
        rows = self.connection.execute("SELECT name, partitions, settings FROM topics").fetchall()
        return {
            name: Topic(name=name, partitions=partitions, replication=1, settings=json.loads(settings))
            for name, partitions, settings in rows
        }

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        return [TopicPartition(topic, number) for topic in topics for number in range(self._topic(topic)[0].partitions)]

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """The first offset kept and the one that the next record will get."""
        return {partition: self._bounds(partition)[1:] for partition in partitions}

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """What the group has committed of these partitions."""
        query = "SELECT topic, partition, next, metadata FROM commits WHERE group_name = ?"
        rows = self.connection.execute(query, (group,)).fetchall()
        known = {TopicPartition(topic, partition): Position(*position) for topic, partition, *position in rows}
        return {partition: known[partition] for partition in partitions if partition in known}

    def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset whose timestamp is at or after this one; the end if there is none."""
        query = "SELECT place FROM records WHERE place >= ? AND place < ? AND timestamp >= ? ORDER BY place LIMIT 1"
        found = {}
        for partition in partitions:
            zero, first, end = self._bounds(partition)
            row = self.connection.execute(query, (zero + first, zero + end, timestamp)).fetchone()
            found[partition] = row[0] - zero if row else end
        return found

    def _topic(self, name: str) -> tuple[Limits, list[int]]:
        """A topic's limits, and the ids of its partitions by their numbers."""
        if name not in self._topics:
            row = self.connection.execute("SELECT partitions, settings FROM topics WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise UnknownTopicError(f"topic {name} does not exist", remedy="create it: choreo topics create")
            query = "SELECT id FROM partitions WHERE topic = ? ORDER BY partition"
            ids = [id_ for (id_,) in self.connection.execute(query, (name,)).fetchall()]
            self._topics[name] = limits_of(Topic(name=name, partitions=row[0], settings=json.loads(row[1]))), ids
        return self._topics[name]

    def _bounds(self, partition: TopicPartition) -> tuple[int, int, int]:
        """The place of a partition's offset 0, its first offset, and the offset its next record will get."""
        ids = self._topic(partition.topic)[1]
        if not 0 <= partition.partition < len(ids):
            raise unknown_partition(partition)
        id_ = ids[partition.partition]
        first, end = self.connection.execute("SELECT first, next FROM partitions WHERE id = ?", (id_,)).fetchone()
        return id_ << _SHIFT, first, end

    def register(self, transactional_id: str) -> int:
        """The epoch of a new producer with this id; producers of older epochs are refused from now on."""
        query = """INSERT INTO producers VALUES (?, 1)
            ON CONFLICT (transactional_id) DO UPDATE SET epoch = epoch + 1 RETURNING epoch"""
        (epoch,) = self.connection.execute(query, (transactional_id,)).fetchone()
        return int(epoch)

    def write(self, records: Sequence[NewRecord], commit: Commit | None, fence: tuple[str, int] | None) -> None:
        """Append and commit all, or raise and do nothing; `fence` is the producer's transactional id and its epoch."""
        query = "SELECT epoch FROM producers WHERE transactional_id = ?"
        if fence and self.connection.execute(query, fence[:1]).fetchone() != fence[1:]:
            raise NotOwnerError(
                f"a newer producer of transactional id {fence[0]} has fenced this one",
                remedy="stop here if another instance has taken over, else give each instance its own id",
            )
        if commit:
            state = Group.load(self._state(commit.group))
            for partition, (_, generation) in commit.positions.items():
                if not state.owns(commit.member, partition, generation):
                    raise not_owner(partition, commit.group)
        self._turn += 1
        batches: dict[int, list[NewRecord]] = {}
        for record in records:
            limits, ids = self._topic(record.topic)
            batches.setdefault(ids[partition_of(record, limits, self._turn)], []).append(record)
        for id_, batch in batches.items():
            self._append(id_, batch)
        if commit:
            rows = [(commit.group, *partition, *position) for partition, (position, _) in commit.positions.items()]
            self.connection.executemany("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?)", rows)

    def _append(self, id_: int, records: list[NewRecord]) -> None:
        query = "UPDATE partitions SET next = next + ? WHERE id = ? RETURNING next"
        (end,) = self.connection.execute(query, (len(records), id_)).fetchone()
        now = self._now()
        rows = [
            (place, now if given is None else given, key, value, msgpack.packb(headers) if headers else None)
            for place, (_, key, value, headers, given, _) in enumerate(records, (id_ << _SHIFT) + end - len(records))
        ]
        self.connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)

    def fetch(
        self, positions: Mapping[TopicPartition, int], limit: int, start: Start
    ) -> dict[TopicPartition, tuple[int, list[Record]]]:
        """The records from these positions on, at most `limit` and about 16 MB of them; `start` as in `Consumer`."""
        query = "SELECT place, timestamp, key, value, headers FROM records WHERE place >= ? AND place < ? LIMIT ?"
        fetched: dict[TopicPartition, tuple[int, list[Record]]] = {}
        room = _FETCH_BYTES
        for partition, position in positions.items():
            zero, first, end = self._bounds(partition)
            begin = max(position, first) if position <= end else first if start == "earliest" else end
            found: list[Record] = []
            with closing(self.connection.execute(query, (zero + begin, zero + end, limit))) as rows:
                for place, timestamp, key, value, packed in rows:
                    headers = list(msgpack.unpackb(packed, use_list=False)) if packed else []
                    found.append(Record(*partition, place - zero, timestamp, key, value, headers))
                    room -= len(value or b"")
                    if room <= 0:
                        break
            if found or begin != position:
                fetched[partition] = (found[-1].offset + 1 if found else begin), found
            limit -= len(found)
            if limit <= 0 or room <= 0:
                break
        return fetched

    def trim(self) -> bool:
        """Delete a few expired records; whether there may be more.

        A record is expired when everything up to it is older than its topic's `retention.ms`. Bites are small, because
        nobody can append while one is taken.
        """
        query = """SELECT id, first, next, retention_ms FROM partitions JOIN topics ON topic = name
            WHERE retention_ms IS NOT NULL AND first < next"""
        return any(self._bite(*row) for row in self.connection.execute(query).fetchall())

    def _bite(self, id_: int, first: int, end: int, retention: int) -> bool:
        zero, until = id_ << _SHIFT, self._now() - retention
        query = "SELECT place, timestamp, length(value) FROM records WHERE place >= ? AND place < ?"
        kept, size = zero + first, 0
        with closing(self.connection.execute(query, (kept, zero + min(end, first + _BITE_RECORDS)))) as rows:
            for place, timestamp, length in rows:
                if timestamp >= until or size > _BITE_BYTES:
                    break
                kept, size = place + 1, size + (length or 0)
        self.connection.execute("DELETE FROM records WHERE place >= ? AND place < ?", (zero + first, kept))
        self.connection.execute("UPDATE partitions SET first = ? WHERE id = ?", (kept - zero, id_))
        return kept > zero + first

    def settle(self, group: str, member: int | None, topics: Sequence[str]) -> tuple[int, Step]:
        """See `Group.settle`. Whoever looks also removes the dead. Joins if there is no such member; returns its id."""
        self.partitions(topics)  # refuses unknown ones before anything is written
        now = self._beat()
        with self._group(group) as state:
            # If our own heartbeats were late, so may everybody's: somebody held the lock, or the disk stood still.
            if now >= self._patient_until and now - self._beaten < SESSION_TIMEOUT // 2:
                state.expel(now)
            if member not in state.members:
                member = state.generation + 1  # never given before: joining is one of the things that make it grow
                state.join(member, topics, now)
            subscribed = {topic for each in state.members.values() for topic in each.topics}
            return member, state.settle(member, self.partitions(sorted(subscribed)), now)

    def release(self, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
        """See `Group.release`."""
        with self._group(group) as state:
            state.release(member, partitions)

    def leave(self, group: str, member: int) -> None:
        """See `Group.leave`."""
        with self._group(group) as state:
            state.leave(member)

    def heartbeat(self, members: Iterable[tuple[str, int]]) -> None:
        """Show that these members of groups live."""
        before, self._beaten = self._beaten, self._beat()
        if self._beaten - before > SESSION_TIMEOUT // 2:
            self._patient_until = self._beaten + SESSION_TIMEOUT
        for group, member in members:
            with self._group(group) as state:
                if member in state.members:
                    state.members[member] = state.members[member]._replace(seen=self._beat())

    def members(self, group: str) -> int:
        """How many members of a group live."""
        state = Group.load(self._state(group))
        state.expel(self._beat())
        return len(state.members)

    def generations(self) -> dict[str, int]:
        """The generation of each group: when one changes, its members should look."""
        return dict(self.connection.execute("SELECT name, generation FROM groups").fetchall())

    @contextmanager
    def _group(self, name: str) -> Iterator[Group]:
        before = self._state(name)
        state = Group.load(before)
        yield state
        if (after := state.dump()) != before:
            self.connection.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (name, state.generation, after))

    def _state(self, name: str) -> str:
        row = self.connection.execute("SELECT state FROM groups WHERE name = ?", (name,)).fetchone()
        return row[0] if row else Group().dump()

"""Appending, reading and trimming records: what the log's worker threads do with its file."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from choreo.log.embedded import Commit, Fence, Fetched, fenced_producer, not_owner
from choreo.log.limits import Limits, limits_of, partition_of, place_of, unknown_partition, unknown_topic
from choreo.log.port import NewRecord, Record, Start, Topic, TopicPartition
from choreo.log.sqlite.packing import pack, unpack

_SHIFT = 40  # see `records` in schema.sql
_FETCH_BYTES = 16 * 1024 * 1024
_BITE_RECORDS, _BITE_BYTES = 1_000, 8 * 1024 * 1024


class TopicInfo(NamedTuple):
    """What never changes about a topic; `ids` are those of its partitions, by number."""

    limits: Limits
    ids: tuple[int, ...]


class Topics:
    """The topics that exist, remembered: they neither change nor go."""

    def __init__(self) -> None:
        self._known: dict[str, TopicInfo] = {}

    def get(self, connection: sqlite3.Connection, topic: str) -> TopicInfo:
        """A topic.

        Raises:
            UnknownTopicError: it does not exist.
        """
        if topic not in self._known:
            row = connection.execute("SELECT partitions, settings FROM topics WHERE name = ?", (topic,)).fetchone()
            if row is None:
                raise unknown_topic(topic)
            ids = connection.execute(
                "SELECT id FROM partitions WHERE topic = ? ORDER BY partition", (topic,)
            ).fetchall()
            limits = limits_of(Topic(name=topic, partitions=row[0], settings=json.loads(row[1])))
            self._known[topic] = TopicInfo(limits, tuple(id_ for (id_,) in ids))
        return self._known[topic]

    def partitions(self, connection: sqlite3.Connection, topics: Iterable[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        return [TopicPartition(topic, n) for topic in topics for n in range(len(self.get(connection, topic).ids))]

    def bounds(self, connection: sqlite3.Connection, partition: TopicPartition) -> tuple[int, int, int]:
        """A partition's id, its first offset, and the offset its next record will get."""
        ids = self.get(connection, partition.topic).ids
        if not 0 <= partition.partition < len(ids):
            raise unknown_partition(partition)
        id_ = ids[partition.partition]
        first, end = connection.execute("SELECT first, next FROM partitions WHERE id = ?", (id_,)).fetchone()
        return id_, first, end


def create_topics(connection: sqlite3.Connection, topics: Sequence[Topic]) -> list[str]:
    """Create those that do not exist; returns their names."""
    created = []
    for topic in topics:
        row = (topic.name, topic.partitions, json.dumps(dict(topic.settings)))
        if connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", row).rowcount:
            rows = [(topic.name, partition) for partition in range(topic.partitions)]
            connection.executemany("INSERT INTO partitions (topic, partition) VALUES (?, ?)", rows)
            created.append(topic.name)
    return created


def read_topics(connection: sqlite3.Connection) -> dict[str, Topic]:
    """All topics."""
    rows = connection.execute("SELECT name, partitions, settings FROM topics").fetchall()
    return {
        name: Topic(name=name, partitions=partitions, replication=1, settings=json.loads(settings))
        for name, partitions, settings in rows
    }


class Write:
    """One call's records and offsets on their way into the file. All that can be refused is refused before it is written.

    Args:
        topics: what is known of them.
        records: what to append.
        commit: offsets to commit.
        fence: the producer, if it has a transactional id.
    """

    _turn = itertools.count()

    def __init__(
        self, topics: Topics, records: Sequence[NewRecord], commit: Commit | None, fence: Fence | None
    ) -> None:
        self._topics, self._records, self._commit, self._fence = topics, records, commit, fence

    def run(self, connection: sqlite3.Connection) -> None:
        """Write it all, inside the running transaction."""
        if self._fence:
            self._check_fence(connection, self._fence)
        if self._commit:
            self._check_claims(connection, self._commit)
        for id_, records in self._by_partition(connection).items():
            self._append(connection, id_, records)
        if self._commit:
            group, _, offsets = self._commit
            rows = [(group, *partition, offset) for partition, (offset, _) in offsets.items()]
            connection.executemany("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)", rows)

    def _by_partition(self, connection: sqlite3.Connection) -> dict[int, list[NewRecord]]:
        turn = next(self._turn)
        batches: dict[int, list[NewRecord]] = {}
        for record in self._records:
            limits, ids = self._topics.get(connection, record.topic)
            batches.setdefault(ids[partition_of(record, limits, turn)], []).append(record)
        return batches

    @staticmethod
    def _append(connection: sqlite3.Connection, id_: int, records: list[NewRecord]) -> None:
        now = time.time_ns() // 1_000_000
        end, peak = connection.execute("SELECT next, peak FROM partitions WHERE id = ?", (id_,)).fetchone()
        rows = []
        for place, (_, key, value, headers, given, _) in enumerate(records, (id_ << _SHIFT) + end):
            timestamp = now if given is None else given
            peak = max(peak, timestamp)
            rows.append((place, timestamp, peak - timestamp, key, value, pack(headers)))
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE partitions SET next = ?, peak = ? WHERE id = ?", (end + len(rows), peak, id_))

    @staticmethod
    def _check_fence(connection: sqlite3.Connection, fence: Fence) -> None:
        query = "SELECT epoch FROM producers WHERE transactional_id = ?"
        if connection.execute(query, (fence.transactional_id,)).fetchone() != (fence.epoch,):
            raise fenced_producer(fence.transactional_id)

    @staticmethod
    def _check_claims(connection: sqlite3.Connection, commit: Commit) -> None:
        query = "SELECT member, generation FROM claims WHERE group_name = ? AND topic = ? AND partition = ?"
        for partition, (_, generation) in commit.offsets.items():
            if connection.execute(query, (commit.group, *partition)).fetchone() != (commit.member, generation):
                raise not_owner(partition, commit.group)


def register(connection: sqlite3.Connection, transactional_id: str) -> int:
    """The epoch of a new producer of this id."""
    query = """INSERT INTO producers VALUES (?, 1)
        ON CONFLICT (transactional_id) DO UPDATE SET epoch = epoch + 1 RETURNING epoch"""
    (epoch,) = connection.execute(query, (transactional_id,)).fetchone()
    return int(epoch)


def fetch(
    connection: sqlite3.Connection,
    topics: Topics,
    positions: Mapping[TopicPartition, int],
    limit: int,
    start: Start,
) -> Fetched:
    """The records from these positions on, at most `limit`, and about 16 MB of them."""
    fetched: Fetched = []
    room = _FETCH_BYTES
    for partition, position in positions.items():
        id_, first, end = topics.bounds(connection, partition)
        begin = place_of(position, first, end, start)
        if begin < end and limit > 0 and room > 0:
            records, size = _read(connection, partition, id_, (begin, min(end, begin + limit)), room)
            limit, room = limit - len(records), room - size
            if records:
                fetched.append((partition, records))
    return fetched


def _read(
    connection: sqlite3.Connection, partition: TopicPartition, id_: int, offsets: tuple[int, int], room: int
) -> tuple[list[Record], int]:
    """Records of one partition, until they are `room` bytes together; and how many bytes they are."""
    topic, number = partition
    zero = id_ << _SHIFT
    query = "SELECT place, timestamp, key, value, headers FROM records WHERE place >= ? AND place < ? ORDER BY place"
    records: list[Record] = []
    size = 0
    with closing(connection.execute(query, (zero + offsets[0], zero + offsets[1]))) as cursor:
        for place, timestamp, key, value, headers in cursor:
            records.append(Record(topic, number, place - zero, timestamp, key, value, unpack(headers)))
            size += len(value or b"")
            if size >= room:
                break
    return records, size


def committed(
    connection: sqlite3.Connection, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """What the group has committed of these partitions."""
    rows = connection.execute("SELECT topic, partition, next FROM commits WHERE group_name = ?", (group,)).fetchall()
    offsets = {TopicPartition(topic, partition): offset for topic, partition, offset in rows}
    return {partition: offsets[partition] for partition in partitions if partition in offsets}


def offset_at(connection: sqlite3.Connection, topics: Topics, partition: TopicPartition, timestamp: int) -> int:
    """The first offset whose timestamp is at or after this one; the end if there is none."""
    id_, first, end = topics.bounds(connection, partition)
    begin = _first_peak(connection, id_, (first, end), timestamp)
    # Trimmed records may have had later timestamps than those kept, so the first high peak need not be the place.
    query = "SELECT place FROM records WHERE place >= ? AND place < ? AND timestamp >= ? ORDER BY place LIMIT 1"
    zero = id_ << _SHIFT
    row = connection.execute(query, (zero + begin, zero + end, timestamp)).fetchone()
    return int(row[0]) - zero if row else end


def _first_peak(connection: sqlite3.Connection, id_: int, offsets: tuple[int, int], timestamp: int) -> int:
    """The first offset up to which some record had at least this timestamp, by halving."""
    low, high = offsets
    while low < high:
        middle = (low + high) // 2
        query = "SELECT timestamp + late FROM records WHERE place = ?"
        row = connection.execute(query, ((id_ << _SHIFT) + middle,)).fetchone()
        if row is None or row[0] < timestamp:  # None: trimmed since the bounds were read
            low = middle + 1
        else:
            high = middle
    return low


def trim(connection: sqlite3.Connection, topics: Topics, now: int) -> bool:
    """Delete a few expired records; whether there may be more.

    A record is expired when everything up to it is older than its topic's `retention.ms`. Bites are small, because
    nobody can append while one is taken.
    """
    for (name,) in connection.execute("SELECT name FROM topics").fetchall():
        limits, ids = topics.get(connection, name)
        for number in range(len(ids)) if limits.retention_ms is not None else ():
            id_, first, end = topics.bounds(connection, TopicPartition(name, number))
            expired = _first_peak(connection, id_, (first, end), now - (limits.retention_ms or 0))
            if first < expired:
                _bite(connection, id_, first, min(expired, first + _BITE_RECORDS))
                return True
    return False


def _bite(connection: sqlite3.Connection, id_: int, first: int, until: int) -> None:
    zero = id_ << _SHIFT
    query = "SELECT place, length(value) FROM records WHERE place >= ? AND place < ? ORDER BY place"
    sizes = connection.execute(query, (zero + first, zero + until)).fetchall()
    total = itertools.accumulate(size or 0 for _, size in sizes)
    last = next((place for (place, _), size in zip(sizes, total, strict=True) if size > _BITE_BYTES), sizes[-1][0])
    connection.execute("DELETE FROM records WHERE place >= ? AND place <= ?", (zero + first, last))
    connection.execute("UPDATE partitions SET first = ? WHERE id = ?", (last + 1 - zero, id_))

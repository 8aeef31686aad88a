-- The embedded logs, version 2. All times are in milliseconds. Several processes may run this at once: the first one makes the tables.
BEGIN IMMEDIATE;

-- Settings are Kafka's by their own names, as a JSON object; `retention_ms` is what they say of it.
CREATE TABLE IF NOT EXISTS topics (
    name         TEXT PRIMARY KEY,
    partitions   INTEGER NOT NULL,
    settings     TEXT NOT NULL,
    retention_ms INTEGER
) WITHOUT ROWID;

-- Kept are the offsets from `first` to below `next`.
CREATE TABLE IF NOT EXISTS partitions (
    id        INTEGER PRIMARY KEY,
    topic     TEXT NOT NULL REFERENCES topics (name),
    partition INTEGER NOT NULL,
    first     INTEGER NOT NULL DEFAULT 0,
    next      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);

-- `place` is the partition's id and the offset in one number (id * 2^40 + offset): the table's own order is
-- the log's order, and needs no index beside it. Headers are msgpack.
CREATE TABLE IF NOT EXISTS records (
    place     INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    key       BLOB,
    value     BLOB,
    headers   BLOB
);

CREATE TABLE IF NOT EXISTS commits (
    group_name TEXT NOT NULL,
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    next       INTEGER NOT NULL,
    metadata   TEXT NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;

-- The newest producer of each transactional id.
CREATE TABLE IF NOT EXISTS producers (transactional_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;

-- Consumer groups: `state` is `Group.dump` of choreo/log/groups.py.
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;

PRAGMA application_id = 0x63686C67;  -- "chlg"
PRAGMA user_version = 3;
COMMIT;

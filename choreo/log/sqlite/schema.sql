-- The embedded log, version 1. All times are in milliseconds.

-- Settings are Kafka's by their own names, as a JSON object.
CREATE TABLE topics (
    name       TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL,
    settings   TEXT NOT NULL
) WITHOUT ROWID;

-- Kept are the offsets from `first` to below `next`; `peak` is the highest timestamp appended so far.
CREATE TABLE partitions (
    id        INTEGER PRIMARY KEY,
    topic     TEXT NOT NULL REFERENCES topics (name),
    partition INTEGER NOT NULL,
    first     INTEGER NOT NULL DEFAULT 0,
    next      INTEGER NOT NULL DEFAULT 0,
    peak      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);

-- `place` is the partition's id and the offset in one number (id * 2^40 + offset): the table's own order is
-- the log's order, and needs no index beside it. `late` is how far the timestamp lies below the highest one before it:
-- timestamp + late never falls within a partition, so a point in time is found by halving.
CREATE TABLE records (
    place     INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    late      INTEGER NOT NULL,
    key       BLOB,
    value     BLOB,
    headers   BLOB
);

CREATE TABLE commits (
    group_name TEXT NOT NULL,
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    next       INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;

-- The newest producer of each transactional id.
CREATE TABLE producers (
    transactional_id TEXT PRIMARY KEY,
    epoch            INTEGER NOT NULL
) WITHOUT ROWID;

-- Consumer groups, as in choreo/log/groups.py. Ids are never given twice; `seen` is on the machine's monotonic clock.
CREATE TABLE groups (
    name       TEXT PRIMARY KEY,
    generation INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE members (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name TEXT NOT NULL,
    topics     TEXT NOT NULL,
    seen       INTEGER NOT NULL
);

CREATE TABLE claims (
    group_name TEXT NOT NULL,
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    member     INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    release_by INTEGER,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;

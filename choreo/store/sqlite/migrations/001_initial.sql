-- Whose store this is: one row.
CREATE TABLE choreo_service (name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;

-- How far the service has come in each partition. `done` holds the finished offsets above the watermark as
-- ranges ("7-9,12"); `epoch` grows with each new owner, so that an older owner's update finds no row. `owner` is the
-- instance that has not given the partition back, else empty. `suspect` is the offset that it handles alone;
-- `suspects` says at which offsets earlier owners died, and how often ({"17": 2}).
CREATE TABLE choreo_progress (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    watermark INTEGER NOT NULL DEFAULT -1,
    done TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    deaths INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER,
    suspects TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- The (event, handler) pairs that are done. Keys begin with the saga's start, so inserts stay near the right edge.
CREATE TABLE choreo_inbox (key BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;

-- Emitted records of committed transactions that the log has not acknowledged yet, one row a transaction.
-- `partitions` is a JSON array of [topic, partition] the batch was read from; `at` is in ms since the epoch.
CREATE TABLE choreo_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    partitions TEXT NOT NULL,
    at INTEGER NOT NULL,
    records BLOB NOT NULL
);

-- Keys whose first record (`head`, its event id) is in the retry topic or a dead letter. `waiting` counts the rows
-- behind, so that who puts one there and who releases the key meet in one row.
CREATE TABLE choreo_parked (
    lane BLOB NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    head TEXT NOT NULL,
    handler TEXT NOT NULL,
    key BLOB NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX choreo_parked_at ON choreo_parked (topic, partition);

-- The records that wait behind those heads, in the order in which they are to be handled.
CREATE TABLE choreo_behind (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane BLOB NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX choreo_behind_lane ON choreo_behind (lane, id);

-- What handlers have to remember of sagas, see `Note`. Two instances that decide at the same time write the same number, and the
-- second is refused. Keys begin with the saga's start, as in the inbox; `keep` is in ms since the epoch.
CREATE TABLE choreo_notes (
    key BLOB NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    content BLOB NOT NULL,
    keep INTEGER NOT NULL,
    PRIMARY KEY (key, number)
);

-- What is to happen at a time (`due`, ms since the epoch), and the event that it is about. Who looks for what is due reads the
-- beginning of a partition's part of the index.
CREATE TABLE choreo_timers (
    timer_id BLOB NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    due INTEGER NOT NULL,
    handler TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX choreo_timers_due ON choreo_timers (topic, partition, due);

-- Whose store this is: one row.
CREATE TABLE choreo_service (name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;

-- How far the service has come in each partition. `done` holds the finished offsets above the watermark as
-- ranges ("7-9,12"); `epoch` grows with each new owner, so that an older owner's update finds no row.
CREATE TABLE choreo_progress (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    done TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- The (event, handler) pairs that are done. Keys begin with the saga's start, so inserts stay near the right edge.
CREATE TABLE choreo_inbox (key BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;

-- Emitted records of committed transactions that the log has not acknowledged yet, one row a transaction.
-- `partitions` is a JSON array of [topic, partition] the batch was read from.
CREATE TABLE choreo_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL,
    partitions TEXT NOT NULL,
    records BLOB NOT NULL
);

-- Whose schema this is: one row.
CREATE TABLE choreo_service (name text PRIMARY KEY);

-- How far the service has come in each partition. `done` holds the finished offsets above the watermark as
-- ranges ("7-9,12"); `epoch` grows with each new owner. `owner` is the instance that has not given the partition back,
-- else empty. `suspect` is the offset that it handles alone; `suspects` says at which offsets earlier owners died, and
-- how often ({"17": 2}). That `watermark` allows no null is what refuses an older owner's commit; see queries.sql.
CREATE TABLE choreo_progress (
    topic text NOT NULL,
    partition int NOT NULL,
    watermark bigint NOT NULL DEFAULT -1,
    done text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT '',
    deaths int NOT NULL DEFAULT 0,
    suspect bigint,
    suspects text NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);  -- every commit updates a row: room for its next version beside it

-- The (event, handler) pairs that are done. Keys begin with the saga's start, so inserts stay near the right edge.
CREATE TABLE choreo_inbox (key bytea PRIMARY KEY, at bigint NOT NULL);

-- Emitted records of committed transactions that the log has not acknowledged yet, one row a transaction.
-- `partitions` ("orders/3") are those that the batch was read from; `at` is in ms since the epoch.
CREATE TABLE choreo_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partitions text[] NOT NULL,
    at bigint NOT NULL,
    records bytea NOT NULL
);

-- Keys whose first record (`head`, its event id) is in the retry topic or a dead letter. `waiting` counts the rows
-- behind, so that who puts one there and who releases the key meet in one row.
CREATE TABLE choreo_parked (
    lane bytea PRIMARY KEY,
    topic text NOT NULL,
    partition int NOT NULL,
    head bytea NOT NULL,  -- UTF-8; the ids of other producers' events may hold what `text` does not
    handler text NOT NULL,
    key bytea NOT NULL,
    waiting bigint NOT NULL DEFAULT 0
);
CREATE INDEX choreo_parked_at ON choreo_parked (topic, partition);

-- The records that wait behind those heads, in the order in which they are to be handled.
CREATE TABLE choreo_behind (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane bytea NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX choreo_behind_lane ON choreo_behind (lane, id);

-- What handlers have to remember of sagas, see `Note`. Two instances that decide at the same time write the same number, and the
-- second is refused. Keys begin with the saga's start, as in the inbox; `keep` is in ms since the epoch.
CREATE TABLE choreo_notes (
    key bytea NOT NULL,
    number int NOT NULL,
    kind text NOT NULL,
    content bytea NOT NULL,
    keep bigint NOT NULL,
    PRIMARY KEY (key, number)
);

-- What is to happen at a time (`due`, ms since the epoch), and the event that it is about. Who looks for what is due reads the
-- beginning of a partition's part of the index.
CREATE TABLE choreo_timers (
    timer_id bytea PRIMARY KEY,
    topic text NOT NULL,
    partition int NOT NULL,
    due bigint NOT NULL,
    handler text NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX choreo_timers_due ON choreo_timers (topic, partition, due);

-- name: make_migrations
-- Which migrations this file has had; SQLite's own user_version may be the user's, whose tables live here too.
CREATE TABLE IF NOT EXISTS choreo_migrations (number INTEGER NOT NULL PRIMARY KEY);

-- name: version
SELECT coalesce(max(number), 0) FROM choreo_migrations;

-- name: migrated
INSERT INTO choreo_migrations (number) VALUES (?);

-- name: service
-- The service that owns this store; no row in a new one.
SELECT name FROM choreo_service;

-- name: claim
INSERT INTO choreo_service (name) VALUES (?);

-- name: make_progress
INSERT INTO choreo_progress (topic, partition) VALUES (?, ?) ON CONFLICT (topic, partition) DO NOTHING;

-- name: progress
SELECT watermark, done, epoch, owner, deaths, suspect, suspects FROM choreo_progress WHERE topic = ? AND partition = ?;

-- name: take_over
UPDATE choreo_progress SET epoch = ?, owner = ?, deaths = ?, suspect = NULL, suspects = ?
WHERE topic = ? AND partition = ?;

-- name: give_back
UPDATE choreo_progress SET owner = '', suspect = NULL WHERE topic = ? AND partition = ? AND epoch = ?;

-- name: suspect
UPDATE choreo_progress SET suspect = ? WHERE topic = ? AND partition = ? AND owner = ?;

-- name: survived
UPDATE choreo_progress SET deaths = 0, suspect = NULL, suspects = '{}' WHERE topic = ? AND partition = ? AND owner = ?;

-- name: unit
-- What a unit of work writes as a rule, each column one parameter. Who inserts a row here does all of it in one
-- statement, which Python's lock is let go for once; between statements, other threads would take it each time.
CREATE TEMP VIEW choreo_unit AS
SELECT '' AS progress, 0 AS partitions, x'' AS keys, '' AS each, 0 AS at, '' AS ticked, NULL AS outbox_id, '' AS read_from, x'' AS records;

-- name: write_unit
-- `progress` is an array of [topic, partition, epoch, watermark, done]. A partition that another instance has taken
-- over finds no row, and the whole statement is undone. `keys` are 16 bytes each, and `each` is an array with an element for
-- each of them; `records` is null when none were emitted.
CREATE TEMP TRIGGER choreo_write_unit INSTEAD OF INSERT ON choreo_unit
BEGIN
    UPDATE choreo_progress SET watermark = json_extract(moved.value, '$[3]'), done = json_extract(moved.value, '$[4]')
    FROM json_each(NEW.progress) AS moved
    WHERE topic = json_extract(moved.value, '$[0]') AND partition = json_extract(moved.value, '$[1]')
        AND epoch = json_extract(moved.value, '$[2]');
    SELECT RAISE(ABORT, 'fenced') WHERE changes() <> NEW.partitions;
    INSERT INTO choreo_inbox (key, at)
    SELECT substr(NEW.keys, 16 * each.key + 1, 16), NEW.at FROM json_each(NEW.each) AS each;
    DELETE FROM choreo_outbox WHERE id IN (SELECT value FROM json_each(NEW.ticked));
    INSERT INTO choreo_outbox (id, partitions, at, records)
    SELECT NEW.outbox_id, NEW.read_from, NEW.at, NEW.records WHERE NEW.records IS NOT NULL;
END;

-- name: finish_unit
-- The outbox row's number is the table's next one: AUTOINCREMENT takes note of it, so that none is used twice. VALUES, since
-- what SELECT gives would be copied first, if large into a temporary file; `main`, since a handler may have made temporary tables.
INSERT INTO choreo_unit VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6,
    coalesce((SELECT seq FROM main.sqlite_sequence WHERE name = 'choreo_outbox'), 0) + 1, ?7, ?8
) RETURNING outbox_id;

-- name: walk_inbox
SELECT key, at FROM choreo_inbox WHERE key > ? ORDER BY key LIMIT ?;

-- name: forget
DELETE FROM choreo_inbox WHERE key = ?;

-- name: outbox
SELECT id, partitions, records FROM choreo_outbox ORDER BY id;

-- name: abandoned
SELECT id, partitions, records FROM choreo_outbox WHERE partitions = '[]' AND at < ? ORDER BY id;

-- name: parked
SELECT lane FROM choreo_parked WHERE topic = ? AND partition = ?;

-- name: park
INSERT INTO choreo_parked (lane, topic, partition, head, handler, key) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (lane) DO UPDATE SET head = excluded.head;

-- name: wait
-- Finds no row when the lane has been released.
UPDATE choreo_parked SET waiting = waiting + 1 WHERE lane = ?;

-- name: put_behind
INSERT INTO choreo_behind (lane, record) VALUES (?, ?);

-- name: take_behind
DELETE FROM choreo_behind WHERE id = ? RETURNING lane;

-- name: wait_no_more
UPDATE choreo_parked SET waiting = waiting - 1 WHERE lane = ?;

-- name: behind
-- One row with nulls for a parked lane in which nothing waits, none for a lane that is not parked.
SELECT behind.id, behind.record
FROM choreo_parked AS parked LEFT JOIN choreo_behind AS behind ON behind.lane = parked.lane
WHERE parked.lane = ?1 AND ?2 IN ('', parked.head) ORDER BY behind.id LIMIT ?3;

-- name: release
DELETE FROM choreo_parked WHERE lane = ? AND head = ? AND waiting = 0;

-- name: is_owner
SELECT 1 FROM choreo_progress WHERE topic = ? AND partition = ? AND epoch = ?;

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

-- name: advance
-- Finds no row when another instance has taken over.
UPDATE choreo_progress SET watermark = ?, done = ? WHERE topic = ? AND partition = ? AND epoch = ?;

-- name: remember
-- All keys as one value of 16 bytes each: one statement, in which Python's lock is let go once and not at each row.
WITH RECURSIVE part(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM part WHERE i + 1 < ?3)
INSERT INTO choreo_inbox (key, at) SELECT substr(?1, 16 * i + 1, 16), ?2 FROM part;

-- name: walk_inbox
SELECT key, at FROM choreo_inbox WHERE key > ? ORDER BY key LIMIT ?;

-- name: forget
DELETE FROM choreo_inbox WHERE key = ?;

-- name: put_outbox
INSERT INTO choreo_outbox (partitions, at, records) VALUES (?, ?, ?);

-- name: tick_outbox
DELETE FROM choreo_outbox WHERE id = ?;

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

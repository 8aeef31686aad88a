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

-- name: take_over
-- A new owner: a new row starts before every offset, an old one gets the next epoch.
INSERT INTO choreo_progress (topic, partition, watermark, done, epoch) VALUES (?, ?, -1, '', 1)
ON CONFLICT (topic, partition) DO UPDATE SET epoch = epoch + 1
RETURNING watermark, done, epoch;

-- name: advance
-- Finds no row when another instance has taken over.
UPDATE choreo_progress SET watermark = ?, done = ? WHERE topic = ? AND partition = ? AND epoch = ?;

-- name: remember
INSERT INTO choreo_inbox (key, at) VALUES (?, ?);

-- name: put_outbox
INSERT INTO choreo_outbox (instance, partitions, records) VALUES (?, ?, ?);

-- name: tick_outbox
DELETE FROM choreo_outbox WHERE id = ?;

-- name: others_outbox
-- What other instances have not ticked off, oldest first.
SELECT id, partitions, records FROM choreo_outbox WHERE instance <> ? ORDER BY id;

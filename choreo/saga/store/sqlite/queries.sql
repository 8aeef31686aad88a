-- name: make_migrations
CREATE TABLE IF NOT EXISTS migrations (number INTEGER NOT NULL PRIMARY KEY);

-- name: version
SELECT coalesce(max(number), 0) FROM migrations;

-- name: migrated
INSERT INTO migrations (number) VALUES (?);

-- name: place
INSERT INTO places (topic, partition) VALUES (?, ?)
ON CONFLICT (topic, partition) DO UPDATE SET topic = topic RETURNING id;

-- name: name
INSERT INTO names (text) VALUES (?) ON CONFLICT (text) DO UPDATE SET text = text RETURNING id;

-- name: own
UPDATE places SET owner = ? WHERE id = ? RETURNING next;

-- name: read_on
UPDATE places SET next = ?, at_ms = max(at_ms, ?) WHERE id = ? AND owner = ?;

-- name: see
INSERT OR IGNORE INTO sightings (saga, place, offset, packed) VALUES {rows};

-- name: mark
INSERT INTO dirty (saga, mark) VALUES {rows} ON CONFLICT (saga) DO UPDATE SET mark = excluded.mark;

-- name: letter
INSERT OR IGNORE INTO letters (letter, saga) VALUES (?, ?);

-- name: settle
INSERT OR IGNORE INTO settled (letter, place, offset, packed) VALUES (?, ?, ?, ?);

-- name: sagas_of_letter
SELECT saga FROM letters WHERE letter = ?;

-- name: stray
INSERT OR IGNORE INTO strays (event, saga) VALUES (?, ?);

-- name: datum
INSERT OR IGNORE INTO data (name, value, saga) VALUES (?, ?, ?);

-- name: last_mark
SELECT coalesce(max(mark), 0) FROM dirty;

-- name: marked
SELECT saga FROM dirty ORDER BY mark, saga LIMIT ?;

-- name: marks
SELECT saga, mark FROM dirty WHERE saga IN ({keys});

-- name: sightings
SELECT saga, place, offset, packed FROM sightings WHERE saga IN ({keys}) ORDER BY saga, place, offset;

-- name: settled
SELECT place, offset, packed FROM settled WHERE letter = ? ORDER BY place, offset;

-- name: before
SELECT saga, kind, waits FROM sagas WHERE saga IN ({keys});

-- name: kind
INSERT INTO kinds (type, state, outcome, services, handlers, waits_for) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (type, state, outcome, services, handlers, waits_for) DO UPDATE SET type = type RETURNING id;

-- name: count
UPDATE kinds SET sagas = sagas + ? WHERE id = ?;

-- name: keep
INSERT OR REPLACE INTO sagas (
    saga, started, kind, updated, ended, duration, key, events, retries, dead_letters, owed, reason, error, parent, until,
    changes, waits
) VALUES {rows};

-- name: unmark
DELETE FROM dirty WHERE saga = ? AND mark <= ?;

-- name: watch
INSERT OR IGNORE INTO watch (follower, place, offset, saga) VALUES (?, ?, ?, ?);

-- name: unwatch
DELETE FROM watch WHERE follower = ? AND place = ? AND offset = ? AND saga = ?;

-- name: passed
DELETE FROM watch WHERE follower = ? AND place = ? AND offset < ? RETURNING saga;

-- name: commit
INSERT INTO committed (follower, place, offset) VALUES (?, ?, ?)
ON CONFLICT (follower, place) DO UPDATE SET offset = excluded.offset WHERE offset <> excluded.offset;

-- name: note_commit
INSERT INTO commits (follower, place, at_ms, offset) VALUES (?, ?, ?, ?)
ON CONFLICT (follower, place, at_ms) DO UPDATE SET offset = excluded.offset;

-- name: due
UPDATE sagas SET changes = NULL WHERE saga IN (SELECT saga FROM sagas WHERE changes <= ? ORDER BY changes LIMIT ?)
RETURNING saga;

-- name: waited_for
SELECT DISTINCT f.text, p.topic, p.partition FROM (SELECT DISTINCT follower, place FROM watch) AS w
JOIN names AS f ON f.id = w.follower JOIN places AS p ON p.id = w.place;

-- name: committed
SELECT f.text, p.topic, p.partition, c.offset FROM committed AS c
JOIN names AS f ON f.id = c.follower JOIN places AS p ON p.id = c.place;

-- name: names
SELECT id, text FROM names WHERE id > ?;

-- name: places
SELECT id, topic, partition, next, at_ms FROM places;

-- name: kinds
SELECT id, type, state, outcome, services, handlers, waits_for, sagas FROM kinds WHERE sagas > 0;

-- name: durations
SELECT duration FROM sagas WHERE kind IN (SELECT id FROM kinds WHERE type = ?) AND ended IS NOT NULL;

-- name: beginning
SELECT saga FROM sightings WHERE saga >= ? AND saga < ? GROUP BY saga ORDER BY saga LIMIT ?;

-- name: near
SELECT saga, packed FROM sightings WHERE saga >= ? AND saga < ?;

-- name: sagas_of_stray
SELECT saga FROM strays WHERE event = ?;

-- name: letters_beginning
SELECT DISTINCT saga FROM letters WHERE letter >= ? AND letter < ?;

-- name: data_of
SELECT name, value FROM data WHERE saga = ? ORDER BY name, value;

-- name: commits
SELECT at_ms, offset FROM commits WHERE follower = ? AND place = ? AND at_ms >= coalesce(
    (SELECT max(at_ms) FROM commits WHERE follower = ? AND place = ? AND at_ms <= ?), 0
) ORDER BY at_ms;

-- name: note
INSERT INTO notes (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: be_born
INSERT OR IGNORE INTO notes (name, value) VALUES ('born', ?);

-- name: born
SELECT value FROM notes WHERE name = 'born';

-- name: notes
SELECT name, value FROM notes WHERE name <> 'born';

-- name: old
SELECT saga FROM sagas WHERE updated < ? AND changes IS NULL AND dead_letters = 0 AND owed = 0
AND NOT EXISTS (SELECT 1 FROM dirty WHERE dirty.saga = sagas.saga) ORDER BY updated LIMIT ?;

-- name: forget_saga
DELETE FROM sagas WHERE saga = ?;

-- name: forget_sightings
DELETE FROM sightings WHERE saga = ?;

-- name: forget_stray
DELETE FROM strays WHERE event = ? AND saga = ?;

-- name: forget_data
DELETE FROM data WHERE saga = ?;

-- name: forget_settled
DELETE FROM settled WHERE letter = ? AND NOT EXISTS (SELECT 1 FROM letters WHERE letters.letter = settled.letter);

-- name: forget_mark
DELETE FROM dirty WHERE saga = ?;

-- name: letters_of
DELETE FROM letters WHERE saga = ? RETURNING letter;

-- name: thin
-- Of each group, partition and span only the last is kept.
DELETE FROM commits WHERE at_ms < ? AND EXISTS (
    SELECT 1 FROM commits AS later WHERE later.follower = commits.follower AND later.place = commits.place
    AND later.at_ms > commits.at_ms AND later.at_ms / ? = commits.at_ms / ?
);

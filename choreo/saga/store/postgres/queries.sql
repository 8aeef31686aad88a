-- name: schema_lock
SELECT pg_advisory_xact_lock(hashtextextended('choreo tracker ' || $1::text, 0));

-- name: has_schema
SELECT 1 FROM pg_namespace WHERE nspname = $1::text;

-- name: current_schema
SELECT current_schema()::text;

-- name: tables
SELECT count(*), count(*) FILTER (WHERE tablename = 'sightings') FROM pg_tables WHERE schemaname = $1::text;

-- name: make_migrations
CREATE TABLE IF NOT EXISTS migrations (number INTEGER NOT NULL PRIMARY KEY);

-- name: version
SELECT coalesce(max(number), 0) FROM migrations;

-- name: migrated
INSERT INTO migrations (number) VALUES ($1);

-- name: make_names
INSERT INTO names (text) SELECT unnest($1::text[]) ON CONFLICT (text) DO NOTHING;

-- name: names
SELECT id, text FROM names WHERE text = ANY($1::text[]);

-- name: all_names
SELECT id, text FROM names;

-- name: make_places
INSERT INTO places (topic, partition) SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT (topic, partition) DO NOTHING;

-- name: places
SELECT id, topic, partition, next, at_ms FROM places;

-- name: make_kind
INSERT INTO kinds (type, state, outcome, services, handlers, waits_for)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text) ON CONFLICT DO NOTHING;

-- name: kind
SELECT id FROM kinds WHERE type = $1::text AND state = $2::text AND outcome = $3::text AND services = $4::text
    AND handlers = $5::text AND waits_for = $6::text;

-- name: kinds
SELECT id, type, state, outcome, services, handlers, waits_for, sagas FROM kinds WHERE sagas > 0;

-- name: own
UPDATE places SET owner = $1::text WHERE id = ANY($2::int[]) RETURNING topic, partition, next;

-- name: read_on
UPDATE places AS p SET next = n.next, at_ms = greatest(p.at_ms, n.at_ms)
FROM (SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS u (id, next, at_ms)) AS n
WHERE p.id = n.id AND p.owner = $4::text;

-- name: see
INSERT INTO sightings (saga, place, "offset", packed)
SELECT * FROM unnest($1::bytea[], $2::int[], $3::bigint[], $4::bytea[]) ON CONFLICT DO NOTHING;

-- name: mark
INSERT INTO dirty (saga, mark) SELECT key, nextval('marks') FROM unnest($1::bytea[]) AS key ORDER BY key
ON CONFLICT (saga) DO UPDATE SET mark = excluded.mark;

-- name: lock_letters
-- Who writes a dead letter and who settles it must see each other.
SELECT pg_advisory_xact_lock(hashtextextended('choreo letter ' || letter, 0)) FROM unnest($1::text[]) AS letter ORDER BY letter;

-- name: letters
INSERT INTO letters (letter, saga) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: settle
INSERT INTO settled (letter, place, "offset", packed)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bytea[]) ON CONFLICT DO NOTHING;

-- name: sagas_of_letters
SELECT DISTINCT saga FROM letters WHERE letter = ANY($1::text[]);

-- name: strays
INSERT INTO strays (event, saga) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: data
INSERT INTO data (name, value, saga) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) ON CONFLICT DO NOTHING;

-- name: marked
SELECT saga FROM dirty ORDER BY mark LIMIT $1;

-- name: marks
SELECT saga, mark FROM dirty WHERE saga = ANY($1::bytea[]);

-- name: sightings
SELECT saga, place, "offset", packed FROM sightings WHERE saga = ANY($1::bytea[]) ORDER BY saga, place, "offset";

-- name: settled
SELECT l.saga, s.place, s."offset", s.packed FROM letters AS l JOIN settled AS s ON s.letter = l.letter
WHERE l.saga = ANY($1::bytea[]) ORDER BY l.saga, s.place, s."offset";

-- name: hold
-- Whoever adds to one of these sagas from now on waits until this transaction has ended.
SELECT saga, mark FROM dirty WHERE saga = ANY($1::bytea[]) ORDER BY saga FOR UPDATE;

-- name: before
SELECT saga, kind, waits FROM sagas WHERE saga = ANY($1::bytea[]);

-- name: forget_sagas
DELETE FROM sagas WHERE saga = ANY($1::bytea[]);

-- name: count
UPDATE kinds AS k SET sagas = k.sagas + c.number
FROM (SELECT kinds.id, u.number FROM kinds JOIN unnest($1::int[], $2::bigint[]) AS u (id, number) USING (id)
    ORDER BY kinds.id FOR UPDATE OF kinds) AS c
WHERE k.id = c.id;

-- name: watch
INSERT INTO watch (follower, place, "offset", saga)
SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bytea[]) ON CONFLICT DO NOTHING;

-- name: unwatch
DELETE FROM watch AS w USING unnest($1::int[], $2::int[], $3::bigint[], $4::bytea[]) AS u (follower, place, at, saga)
WHERE w.follower = u.follower AND w.place = u.place AND w."offset" = u.at AND w.saga = u.saga;

-- name: commit
WITH told AS (SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[]) AS u (follower, place, at)),
changed AS (
    INSERT INTO committed (follower, place, "offset") SELECT follower, place, at FROM told ORDER BY follower, place
    ON CONFLICT (follower, place) DO UPDATE SET "offset" = excluded."offset"
    WHERE committed."offset" <> excluded."offset"
    RETURNING follower, place, "offset"
)
INSERT INTO commits (follower, place, at_ms, "offset") SELECT follower, place, $4::bigint, "offset" FROM changed
ON CONFLICT (follower, place, at_ms) DO UPDATE SET "offset" = excluded."offset";

-- name: passed
SELECT DISTINCT w.saga FROM unnest($1::int[], $2::int[], $3::bigint[]) AS u (follower, place, at)
JOIN watch AS w ON w.follower = u.follower AND w.place = u.place AND w."offset" < u.at;

-- name: unwatch_passed
DELETE FROM watch AS w USING unnest($1::int[], $2::int[], $3::bigint[]) AS u (follower, place, at)
WHERE w.follower = u.follower AND w.place = u.place AND w."offset" < u.at AND w.saga = ANY($4::bytea[]);

-- name: due
SELECT saga FROM sagas WHERE changes <= $1 ORDER BY changes LIMIT $2;

-- name: not_due
UPDATE sagas SET changes = NULL WHERE saga = ANY($1::bytea[]);

-- name: waited_for
SELECT DISTINCT f.text, p.topic, p.partition FROM (SELECT DISTINCT follower, place FROM watch) AS w
JOIN names AS f ON f.id = w.follower JOIN places AS p ON p.id = w.place;

-- name: committed
SELECT f.text, p.topic, p.partition, c."offset" FROM committed AS c
JOIN names AS f ON f.id = c.follower JOIN places AS p ON p.id = c.place;

-- name: durations
SELECT percentile_disc($1::float8[]) WITHIN GROUP (ORDER BY duration) FROM sagas
WHERE kind IN (SELECT id FROM kinds WHERE type = $2::text) AND ended IS NOT NULL;

-- name: beginning
SELECT DISTINCT saga FROM sightings WHERE saga >= $1::bytea AND saga < $2::bytea ORDER BY saga LIMIT $3;

-- name: near
SELECT saga, packed FROM sightings WHERE saga >= $1::bytea AND saga < $2::bytea;

-- name: sagas_of_stray
SELECT saga FROM strays WHERE event = $1::bytea;

-- name: letters_beginning
SELECT DISTINCT saga FROM letters WHERE starts_with(letter, $1::text);

-- name: data_of
SELECT name, value FROM data WHERE saga = $1::bytea ORDER BY name, value;

-- name: commits
SELECT c.at_ms, c."offset" FROM commits AS c JOIN names AS f ON f.id = c.follower JOIN places AS p ON p.id = c.place
WHERE f.text = $1::text AND p.topic = $2::text AND p.partition = $3 AND c.at_ms >= coalesce(
    (SELECT max(at_ms) FROM commits AS b WHERE b.follower = c.follower AND b.place = c.place AND b.at_ms <= $4::bigint), 0
) ORDER BY c.at_ms;

-- name: note
INSERT INTO notes (name, value) VALUES ($1::text, $2::text) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: be_born
INSERT INTO notes (name, value) VALUES ('born', $1::text) ON CONFLICT (name) DO NOTHING;

-- name: born
SELECT value FROM notes WHERE name = 'born';

-- name: notes
SELECT name, value FROM notes WHERE name <> 'born';

-- name: old
SELECT saga FROM sagas WHERE updated < $1 AND changes IS NULL AND dead_letters = 0 AND owed = 0
    AND NOT EXISTS (SELECT 1 FROM dirty WHERE dirty.saga = sagas.saga) ORDER BY updated LIMIT $2;

-- name: seize
-- Whoever adds to one of these sagas from now on waits; those of which more was seen meanwhile are left alone.
INSERT INTO dirty (saga, mark) SELECT key, 0 FROM unnest($1::bytea[]) AS key ORDER BY key ON CONFLICT (saga) DO NOTHING
RETURNING saga;

-- name: still_old
SELECT saga FROM sagas WHERE saga = ANY($1::bytea[]) AND updated < $2 AND changes IS NULL AND dead_letters = 0 AND owed = 0;

-- name: forget_marks
DELETE FROM dirty WHERE saga = ANY($1::bytea[]);

-- name: forget_sightings
DELETE FROM sightings WHERE saga = ANY($1::bytea[]);

-- name: forget_strays
DELETE FROM strays AS s USING unnest($1::bytea[], $2::bytea[]) AS u (event, saga) WHERE s.event = u.event AND s.saga = u.saga;

-- name: forget_data
DELETE FROM data WHERE saga = ANY($1::bytea[]);

-- name: forget_letters
WITH gone AS (DELETE FROM letters WHERE saga = ANY($1::bytea[]) RETURNING letter)
DELETE FROM settled WHERE letter IN (SELECT letter FROM gone) AND NOT EXISTS (
    SELECT 1 FROM letters AS l WHERE l.letter = settled.letter AND l.saga <> ALL($1::bytea[])
);

-- name: thin
DELETE FROM commits AS c WHERE c.at_ms < $1::bigint AND EXISTS (
    SELECT 1 FROM commits AS later WHERE later.follower = c.follower AND later.place = c.place
    AND later.at_ms > c.at_ms AND later.at_ms / $2::bigint = c.at_ms / $2::bigint
);

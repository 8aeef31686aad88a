-- Lists come as one parameter each: rows as JSON, 16-byte keys end to end, numbers as an array's text. That spares the
-- client most of the work, and there is one prepared statement whatever the values.

-- name: schema_lock
-- One instance at a time migrates.
SELECT pg_advisory_xact_lock(hashtextextended('choreo ' || %(schema)s, 0));

-- name: has_schema
SELECT FROM pg_namespace WHERE nspname = %(schema)s;

-- name: current_schema
-- A schema without the right to use it is passed over in silence.
SELECT current_schema()::text;

-- name: make_migrations
CREATE TABLE IF NOT EXISTS choreo_migrations (number int PRIMARY KEY);

-- name: version
SELECT coalesce(max(number), 0) FROM choreo_migrations;

-- name: migrated
INSERT INTO choreo_migrations (number) VALUES (%(number)s);

-- name: service
SELECT name FROM choreo_service;

-- name: claim
INSERT INTO choreo_service (name) VALUES (%(service)s);

-- name: deferred_constraints
-- Constraints that are checked at the commit unless told otherwise, ready for SET CONSTRAINTS.
SELECT string_agg(DISTINCT format('%%I.%%I', nspname, conname), ', ')
FROM pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace WHERE condeferred;

-- name: commit
-- All that most commits write, at once. An older owner's epoch makes its watermark null, which the table refuses.
WITH moved AS (
    UPDATE choreo_progress AS progress
    SET watermark = CASE WHEN progress.epoch = new.epoch THEN new.watermark END, done = new.done
    FROM json_to_recordset(%(progress)s)
        AS new (topic text, partition int, watermark bigint, done text, epoch bigint)
    WHERE progress.topic = new.topic AND progress.partition = new.partition
), remembered AS (
    INSERT INTO choreo_inbox (key, at)
    SELECT substring(%(inbox)b::bytea FROM first FOR 16), %(now)s::bigint
    FROM generate_series(1, length(%(inbox)b::bytea), 16) AS first
), noted AS (
    INSERT INTO choreo_notes (key, number, kind, content, keep)
    SELECT
        substring(%(note_keys)b::bytea FROM 16 * place::int - 15 FOR 16), number, kind,
        substring(%(contents)b::bytea FROM first FOR length), keep
    FROM ROWS FROM (json_to_recordset(%(notes)s) AS (number int, kind text, keep bigint, first int, length int))
        WITH ORDINALITY AS new (number, kind, keep, first, length, place)
), ticked AS (
    DELETE FROM choreo_outbox WHERE id = ANY (%(ticked)s::bigint[])
)
INSERT INTO choreo_outbox (partitions, at, records)
SELECT %(read_from)s::text[], %(now)s::bigint, %(records)b::bytea WHERE length(%(records)b::bytea) > 0
RETURNING id;

-- name: refuse_overtaken
-- A number may be free because a later note has taken the place of the one that had it: who does not know the later one decides
-- from old notes, and gets a row without a number, which the table refuses. After the unit's statement, since what that has waited
-- for is seen from here only.
INSERT INTO choreo_notes (key, number, kind, content, keep)
SELECT substring(%(keys)b::bytea FROM 16 * place::int - 15 FOR 16), NULL, '', '', 0
FROM unnest(%(numbers)s::int[]) WITH ORDINALITY AS last (number, place)
WHERE EXISTS (
    SELECT FROM choreo_notes AS later
    WHERE later.key = substring(%(keys)b::bytea FROM 16 * place::int - 15 FOR 16) AND later.number > last.number
);

-- name: leave_alone
-- Key by key, however few rows the server takes the table for.
DELETE FROM choreo_notes WHERE ctid = ANY (ARRAY(
    SELECT earlier.ctid
    FROM unnest(%(numbers)s::int[]) WITH ORDINALITY AS last (number, place)
    CROSS JOIN LATERAL (
        SELECT ctid FROM choreo_notes
        WHERE key = substring(%(keys)b::bytea FROM 16 * place::int - 15 FOR 16) AND number < last.number
        OFFSET 0
    ) AS earlier
));

-- name: forget
DELETE FROM choreo_notes WHERE key = ANY (ARRAY(
    SELECT substring(%(keys)b::bytea FROM first FOR 16) FROM generate_series(1, length(%(keys)b::bytea), 16) AS first
));

-- name: set_timers
INSERT INTO choreo_timers (timer_id, topic, partition, due, handler, record)
SELECT
    substring(%(ids)b::bytea FROM 16 * place::int - 15 FOR 16), topic, partition, due, handler,
    substring(%(records)b::bytea FROM first FOR length)
FROM ROWS FROM (
        json_to_recordset(%(timers)s) AS (topic text, partition int, due bigint, handler text, first int, length int)
    ) WITH ORDINALITY AS new (topic, partition, due, handler, first, length, place)
ON CONFLICT (timer_id) DO UPDATE SET
    topic = excluded.topic, partition = excluded.partition, due = excluded.due, handler = excluded.handler,
    record = excluded.record;

-- name: unset_timers
DELETE FROM choreo_timers WHERE timer_id = ANY (ARRAY(
    SELECT substring(%(ids)b::bytea FROM first FOR 16) FROM generate_series(1, length(%(ids)b::bytea), 16) AS first
));

-- name: seen
SELECT key FROM choreo_inbox
WHERE key = ANY (ARRAY(
    SELECT substring(%(keys)b::bytea FROM first FOR 16) FROM generate_series(1, length(%(keys)b::bytea), 16) AS first
));

-- name: notes
SELECT key, number, kind, content FROM choreo_notes
WHERE key = ANY (ARRAY(
    SELECT substring(%(keys)b::bytea FROM first FOR 16) FROM generate_series(1, length(%(keys)b::bytea), 16) AS first
))
ORDER BY key, number;

-- name: expire
WITH walked AS (
    SELECT key, at FROM choreo_inbox WHERE key > %(after)b ORDER BY key LIMIT %(limit)s::bigint
), gone AS (
    DELETE FROM choreo_inbox USING walked WHERE choreo_inbox.key = walked.key AND walked.at < %(before)s::bigint
)
SELECT count(*), (array_agg(key ORDER BY key DESC))[1] FROM walked;

-- name: expire_notes
WITH walked AS (
    SELECT key, max(keep) AS keep FROM choreo_notes WHERE key > %(after)b GROUP BY key ORDER BY key LIMIT %(limit)s::bigint
), gone AS (
    DELETE FROM choreo_notes USING walked WHERE choreo_notes.key = walked.key AND walked.keep < %(before)s::bigint
)
SELECT count(*), (array_agg(key ORDER BY key DESC))[1] FROM walked;

-- name: due
SELECT timer.* FROM json_to_recordset(%(at)s) AS mine (topic text, partition int)
CROSS JOIN LATERAL (
    SELECT timer_id, topic, partition, due, handler, record FROM choreo_timers AS timer
    WHERE timer.topic = mine.topic AND timer.partition = mine.partition AND timer.due < %(before)s::bigint
    ORDER BY timer.due LIMIT %(limit)s::bigint
) AS timer
ORDER BY timer.due LIMIT %(limit)s::bigint;

-- name: next_due
SELECT min(timer.due) FROM json_to_recordset(%(at)s) AS mine (topic text, partition int)
CROSS JOIN LATERAL (
    SELECT due FROM choreo_timers AS timer
    WHERE timer.topic = mine.topic AND timer.partition = mine.partition ORDER BY timer.due LIMIT 1
) AS timer;

-- name: pending
SELECT count(*), min(timer.due) FROM json_to_recordset(%(at)s) AS mine (topic text, partition int)
JOIN choreo_timers AS timer USING (topic, partition);

-- name: watermarks
SELECT progress.topic, progress.partition, progress.watermark
FROM choreo_progress AS progress JOIN json_to_recordset(%(at)s) AS asked (topic text, partition int)
    USING (topic, partition)
WHERE progress.watermark >= 0;

-- name: epochs
SELECT progress.topic, progress.partition, progress.epoch, progress.owner
FROM choreo_progress AS progress JOIN json_to_recordset(%(at)s) AS mine (topic text, partition int)
    USING (topic, partition);

-- name: oust
-- Ends the sessions of earlier owners that stand still in a transaction: an instance that is frozen, or cut off, would
-- hold its locks until the server gave it up.
SELECT pg_terminate_backend(session.pid)
FROM pg_stat_activity AS session
WHERE session.usename = current_user AND session.datname = current_database()
    AND session.xact_start IS NOT NULL AND session.state_change < clock_timestamp() - interval '5 seconds'
    AND session.application_name IN (
        SELECT 'choreo ' || owner FROM unnest(%(dead)s::text[]) AS owner
        UNION SELECT 'choreo ' || progress.owner
        FROM choreo_progress AS progress JOIN json_to_recordset(%(at)s) AS wanted (topic text, partition int)
            USING (topic, partition)
        WHERE progress.owner NOT IN ('', %(me)s)
    );

-- name: make_progress
INSERT INTO choreo_progress (topic, partition)
SELECT topic, partition FROM json_to_recordset(%(at)s) AS wanted (topic text, partition int)
ON CONFLICT (topic, partition) DO NOTHING;

-- name: progress
-- Waits for the present owner's commit, if one is under way.
SELECT progress.topic, progress.partition, watermark, done, epoch, owner, deaths, suspect, suspects
FROM choreo_progress AS progress JOIN json_to_recordset(%(at)s) AS wanted (topic text, partition int)
    USING (topic, partition)
ORDER BY topic, partition FOR UPDATE OF progress;

-- name: take_over
UPDATE choreo_progress AS progress
SET epoch = new.epoch, owner = %(me)s, deaths = new.deaths, suspect = NULL, suspects = new.suspects
FROM json_to_recordset(%(owned)s) AS new (topic text, partition int, epoch bigint, deaths int, suspects text)
WHERE progress.topic = new.topic AND progress.partition = new.partition;

-- name: outbox
-- What touches these partitions, and all before it, but for what this instance is publishing.
SELECT id, partitions, records FROM choreo_outbox
WHERE id <= (SELECT max(id) FROM choreo_outbox WHERE partitions && %(partitions)s::text[])
    AND id <> ALL (%(publishing)s::bigint[])
ORDER BY id;

-- name: abandoned
SELECT id, records FROM choreo_outbox
WHERE partitions = '{}' AND at < %(before)s::bigint AND id <> ALL (%(publishing)s::bigint[]) ORDER BY id;

-- name: give_back
UPDATE choreo_progress AS progress SET owner = '', suspect = NULL
FROM json_to_recordset(%(owned)s) AS mine (topic text, partition int, epoch bigint)
WHERE progress.topic = mine.topic AND progress.partition = mine.partition AND progress.epoch = mine.epoch;

-- name: suspect
UPDATE choreo_progress SET suspect = %(offset)s::bigint
WHERE topic = %(topic)s AND partition = %(partition)s::int AND owner = %(me)s;

-- name: survived
UPDATE choreo_progress AS progress SET deaths = 0, suspect = NULL, suspects = '{}'
FROM json_to_recordset(%(at)s) AS mine (topic text, partition int)
WHERE progress.topic = mine.topic AND progress.partition = mine.partition AND progress.owner = %(me)s;

-- name: parked
SELECT lane FROM choreo_parked JOIN json_to_recordset(%(at)s) AS wanted (topic text, partition int)
    USING (topic, partition);

-- name: lock_lanes
-- Always in the same order: the owner of a topic's partition lets records wait in lanes that the owner of the retry topic's
-- partition empties, and each may have several at a time.
SELECT FROM choreo_parked
WHERE lane = ANY (ARRAY(
        SELECT substring(%(lanes)b::bytea FROM first FOR 16) FROM generate_series(1, length(%(lanes)b::bytea), 16) AS first
    )) OR lane IN (SELECT lane FROM choreo_behind WHERE id = ANY (%(numbers)s::bigint[]))
ORDER BY lane FOR UPDATE;

-- name: park
INSERT INTO choreo_parked (lane, topic, partition, head, handler, key)
VALUES (%(lane)b, %(topic)s, %(partition)s::int, %(head)b, %(handler)s, %(key)b)
ON CONFLICT (lane) DO UPDATE SET head = excluded.head;

-- name: put_behind
-- A lane that has been released is found by no update: its rows get none, which the table refuses.
WITH parked AS (
    UPDATE choreo_parked SET waiting = waiting + 1 WHERE lane = %(lane)b RETURNING lane
)
INSERT INTO choreo_behind (lane, record) VALUES ((SELECT lane FROM parked), %(record)b);

-- name: take_behind
WITH gone AS (
    DELETE FROM choreo_behind WHERE id = ANY (%(numbers)s::bigint[]) RETURNING lane
)
UPDATE choreo_parked SET waiting = waiting - gone.count
FROM (SELECT lane, count(*) FROM gone GROUP BY lane) AS gone WHERE choreo_parked.lane = gone.lane;

-- name: behind
-- One row with nulls for a parked lane in which nothing waits, none for a lane that is not parked.
SELECT behind.id, behind.record
FROM choreo_parked AS parked LEFT JOIN choreo_behind AS behind ON behind.lane = parked.lane
WHERE parked.lane = %(lane)b AND %(head)b IN ('', parked.head) ORDER BY behind.id LIMIT %(limit)s::bigint;

-- name: release
-- Nobody takes the partition over while this runs.
WITH mine AS (
    SELECT FROM choreo_progress
    WHERE topic = %(topic)s AND partition = %(partition)s::int AND epoch = %(epoch)s::bigint FOR SHARE
)
DELETE FROM choreo_parked WHERE lane = %(lane)b AND head = %(head)b AND waiting = 0 AND EXISTS (SELECT FROM mine);

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
-- What a unit of work writes, each column one parameter. Who inserts a row here does all of it in one statement, which
-- Python's lock is let go for once; between statements, other threads would take it each time.
CREATE TEMP VIEW choreo_unit AS
SELECT
    '' AS progress, 0 AS partitions, x'' AS keys, '' AS each, 0 AS at, '' AS ticked, NULL AS outbox_id, '' AS read_from,
    x'' AS records,
    x'' AS note_keys, '' AS notes, x'' AS contents, '' AS alone, x'' AS forgotten, '' AS each_forgotten,
    x'' AS timer_ids, '' AS timers, x'' AS timer_records, x'' AS unset, '' AS each_unset;

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

-- name: write_notes
-- `notes` is an array of runs [number, kind, keep, place of its first key in `note_keys`, contents], of lower numbers first; a
-- content is 2^32 times its first byte in `contents` and its length. `alone` are those that take the place of earlier ones:
-- 2^32 times their place in `note_keys` and their number. A number may be free because a later note has taken the place of the
-- one that had it: who does not know the later one decides from old notes.
-- LIMIT, so that a run is taken apart once and not for each of its notes. A part of no bytes at all is null to SQLite.
CREATE TEMP TRIGGER choreo_write_notes INSTEAD OF INSERT ON choreo_unit WHEN NEW.notes IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'overtaken')
    FROM (
        SELECT
            json_extract(value, '$[0]') AS number, json_extract(value, '$[3]') AS first,
            json_extract(value, '$[4]') AS contents
        FROM json_each(NEW.notes) LIMIT -1
    ) AS run CROSS JOIN json_each(run.contents) AS new CROSS JOIN choreo_notes AS later
    WHERE later.key = substr(NEW.note_keys, 16 * (run.first + new.key) + 1, 16) AND later.number >= run.number;
    INSERT INTO choreo_notes (key, number, kind, content, keep)
    SELECT
        substr(NEW.note_keys, 16 * (run.first + new.key) + 1, 16), run.number, run.kind,
        coalesce(substr(NEW.contents, new.value >> 32, new.value & 0xFFFFFFFF), x''), run.keep
    FROM (
        SELECT
            json_extract(value, '$[0]') AS number, json_extract(value, '$[1]') AS kind,
            json_extract(value, '$[2]') AS keep, json_extract(value, '$[3]') AS first,
            json_extract(value, '$[4]') AS contents
        FROM json_each(NEW.notes) LIMIT -1
    ) AS run CROSS JOIN json_each(run.contents) AS new;
    DELETE FROM choreo_notes WHERE rowid IN (
        SELECT earlier.rowid FROM json_each(NEW.alone) AS last CROSS JOIN choreo_notes AS earlier
        WHERE earlier.key = substr(NEW.note_keys, 16 * (last.value >> 32) + 1, 16)
            AND earlier.number < last.value & 0xFFFFFFFF
    );
    DELETE FROM choreo_notes WHERE key IN (
        SELECT substr(NEW.forgotten, 16 * each.key + 1, 16) FROM json_each(NEW.each_forgotten) AS each
    );
END;

-- name: write_timers
-- `timers` is an array of [topic, partition, due, handler, first byte in `timer_records`, length].
CREATE TEMP TRIGGER choreo_write_timers INSTEAD OF INSERT ON choreo_unit WHEN NEW.timers IS NOT NULL
BEGIN
    INSERT INTO choreo_timers (timer_id, topic, partition, due, handler, record)
    SELECT
        substr(NEW.timer_ids, 16 * new.key + 1, 16), json_extract(new.value, '$[0]'), json_extract(new.value, '$[1]'),
        json_extract(new.value, '$[2]'), json_extract(new.value, '$[3]'),
        substr(NEW.timer_records, json_extract(new.value, '$[4]'), json_extract(new.value, '$[5]'))
    FROM json_each(NEW.timers) AS new WHERE true  -- without WHERE the next word would be part of a join
    ON CONFLICT (timer_id) DO UPDATE SET
        topic = excluded.topic, partition = excluded.partition, due = excluded.due, handler = excluded.handler,
        record = excluded.record;
    DELETE FROM choreo_timers WHERE timer_id IN (
        SELECT substr(NEW.unset, 16 * each.key + 1, 16) FROM json_each(NEW.each_unset) AS each
    );
END;

-- name: finish_unit
-- The outbox row's number is the table's next one: AUTOINCREMENT takes note of it, so that none is used twice. VALUES, since
-- what SELECT gives would be copied first, if large into a temporary file; `main`, since a handler may have made temporary tables.
INSERT INTO choreo_unit VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6,
    coalesce((SELECT seq FROM main.sqlite_sequence WHERE name = 'choreo_outbox'), 0) + 1, ?7, ?8,
    ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19
) RETURNING outbox_id;

-- name: is_noted
SELECT 1 FROM choreo_notes WHERE key = ? AND number >= ?;

-- name: seen
-- The keys end to end, and an array with an element for each; so for `notes`.
SELECT inbox.key FROM json_each(?2) AS each CROSS JOIN choreo_inbox AS inbox
WHERE inbox.key = substr(?1, 16 * each.key + 1, 16);

-- name: notes
-- In no order: sorting would copy every content.
SELECT note.key, note.number, note.kind, note.content FROM json_each(?2) AS each CROSS JOIN choreo_notes AS note
WHERE note.key = substr(?1, 16 * each.key + 1, 16);

-- name: is_known
SELECT 1 FROM choreo_inbox WHERE key = ?;

-- name: walk_inbox
SELECT key, at FROM choreo_inbox WHERE key > ? ORDER BY key LIMIT ?;

-- name: expire_inbox
DELETE FROM choreo_inbox WHERE key = ? AND at < ?;

-- name: walk_notes
SELECT key, max(keep) FROM choreo_notes WHERE key > ? GROUP BY key ORDER BY key LIMIT ?;

-- name: expire_notes
-- Looked at once more: meanwhile another may have been written.
DELETE FROM choreo_notes WHERE key = ?1 AND (SELECT max(keep) FROM choreo_notes WHERE key = ?1) < ?2;

-- name: due
-- The earliest of each partition by the index alone, and only then the records of those.
SELECT timer.timer_id, timer.topic, timer.partition, timer.due, timer.handler, timer.record
FROM json_each(?1) AS mine CROSS JOIN choreo_timers AS timer
WHERE timer.rowid IN (
    SELECT early.rowid FROM choreo_timers AS early
    WHERE early.topic = json_extract(mine.value, '$[0]') AND early.partition = json_extract(mine.value, '$[1]')
        AND early.due < ?2
    ORDER BY early.due LIMIT ?3
)
ORDER BY timer.due LIMIT ?3;

-- name: next_due
SELECT min((
    SELECT min(due) FROM choreo_timers
    WHERE topic = json_extract(mine.value, '$[0]') AND partition = json_extract(mine.value, '$[1]')
)) FROM json_each(?1) AS mine;

-- name: pending
SELECT count(*), min(timer.due) FROM json_each(?1) AS mine CROSS JOIN choreo_timers AS timer
WHERE timer.topic = json_extract(mine.value, '$[0]') AND timer.partition = json_extract(mine.value, '$[1]');

-- name: watermarks
SELECT topic, partition, watermark FROM json_each(?1) AS asked CROSS JOIN choreo_progress
WHERE topic = json_extract(asked.value, '$[0]') AND partition = json_extract(asked.value, '$[1]') AND watermark >= 0;

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

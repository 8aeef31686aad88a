-- Sagas and events go by 16 bytes where their ids are UUIDs; see choreo/saga/store/packing.py. Times are ms since the epoch.

CREATE TABLE names (
    -- Of event types, sources and groups.
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

CREATE TABLE places (
    -- Partitions, and how far each has been read by its owner.
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0,
    at_ms INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    UNIQUE (topic, partition)
);

CREATE TABLE sightings (
    -- Ids begin with the time at which their saga began: it grows at one end, and a saga's rows lie beside each other.
    saga BLOB NOT NULL,
    place INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (saga, place, offset)
) WITHOUT ROWID;

CREATE TABLE settled (
    -- Resolutions name their dead letter only, and may come before it.
    letter TEXT NOT NULL,
    place INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (letter, place, offset)
) WITHOUT ROWID;

CREATE TABLE letters (
    letter TEXT NOT NULL,
    saga BLOB NOT NULL,
    PRIMARY KEY (letter, saga)
) WITHOUT ROWID;

CREATE TABLE strays (
    -- Events whose id does not begin as their saga's does; all others are found by that.
    event BLOB NOT NULL,
    saga BLOB NOT NULL,
    PRIMARY KEY (event, saga)
) WITHOUT ROWID;

CREATE TABLE data (
    -- Payload fields that are declared searchable.
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    saga BLOB NOT NULL,
    PRIMARY KEY (name, value, saga)
) WITHOUT ROWID;
CREATE INDEX data_of_saga ON data (saga);

CREATE TABLE dirty (
    -- Sagas that are to be folded; the mark grows when more is seen after somebody has begun to.
    saga BLOB NOT NULL PRIMARY KEY,
    mark INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE kinds (
    -- What few sagas differ in, with how many sagas are so: filters choose kinds, and counts need no look at sagas.
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    services TEXT NOT NULL,
    handlers TEXT NOT NULL,
    waits_for TEXT NOT NULL,
    sagas INTEGER NOT NULL DEFAULT 0,
    UNIQUE (type, state, outcome, services, handlers, waits_for)
);

CREATE TABLE sagas (
    saga BLOB NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    started INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    ended INTEGER,
    duration INTEGER NOT NULL,
    key TEXT NOT NULL,
    events INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    dead_letters INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    parent TEXT,
    until INTEGER,
    changes INTEGER,
    waits BLOB
) WITHOUT ROWID;
CREATE INDEX sagas_by_kind ON sagas (kind, started);
CREATE INDEX sagas_by_start ON sagas (started);
CREATE INDEX sagas_by_key ON sagas (key);
CREATE INDEX sagas_by_duration ON sagas (duration);
CREATE INDEX sagas_by_update ON sagas (updated);
CREATE INDEX sagas_by_error ON sagas (error) WHERE error <> '';
CREATE INDEX sagas_by_parent ON sagas (parent) WHERE parent IS NOT NULL;
CREATE INDEX sagas_by_retries ON sagas (retries) WHERE retries > 0;
CREATE INDEX sagas_by_letters ON sagas (dead_letters) WHERE dead_letters > 0;
CREATE INDEX sagas_by_owed ON sagas (owed) WHERE owed > 0;
CREATE INDEX sagas_by_change ON sagas (changes) WHERE changes IS NOT NULL;

CREATE TABLE watch (
    -- Sagas that wait for a group to commit past a record.
    follower INTEGER NOT NULL,
    place INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    saga BLOB NOT NULL,
    PRIMARY KEY (follower, place, offset, saga)
) WITHOUT ROWID;

CREATE TABLE committed (
    follower INTEGER NOT NULL,
    place INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (follower, place)
) WITHOUT ROWID;

CREATE TABLE commits (
    -- What groups had committed when; the older, the fewer.
    follower INTEGER NOT NULL,
    place INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (follower, place, at_ms)
) WITHOUT ROWID;

CREATE TABLE notes (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

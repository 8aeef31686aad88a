-- Sagas and events go by 16 bytes where their ids are UUIDs; see choreo/saga/store/packing.py. Times are ms since the epoch.

CREATE TABLE names (
    -- Of event types, sources and groups.
    id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

CREATE TABLE places (
    -- Partitions, and how far each has been read by its owner.
    id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next BIGINT NOT NULL DEFAULT 0,
    at_ms BIGINT NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    UNIQUE (topic, partition)
);

CREATE TABLE sightings (
    -- Ids begin with the time at which their saga began: it grows at one end, and a saga's rows lie beside each other.
    saga BYTEA NOT NULL,
    place INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    packed BYTEA NOT NULL,
    PRIMARY KEY (saga, place, "offset")
);

CREATE TABLE settled (
    -- Resolutions name their dead letter only, and may come before it.
    letter TEXT NOT NULL,
    place INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    packed BYTEA NOT NULL,
    PRIMARY KEY (letter, place, "offset")
);

CREATE TABLE letters (
    letter TEXT NOT NULL,
    saga BYTEA NOT NULL,
    PRIMARY KEY (letter, saga)
);

CREATE TABLE strays (
    -- Events whose id does not begin as their saga's does; all others are found by that.
    event BYTEA NOT NULL,
    saga BYTEA NOT NULL,
    PRIMARY KEY (event, saga)
);

CREATE TABLE data (
    -- Payload fields that are declared searchable.
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    saga BYTEA NOT NULL,
    PRIMARY KEY (name, value, saga)
);
CREATE INDEX data_of_saga ON data (saga);

CREATE SEQUENCE marks;

CREATE TABLE dirty (
    -- Sagas that are to be folded. Who adds to one gives it a new mark, and waits here for whoever else does, or keeps a
    -- fold of it; a fold is kept only by who takes the very mark away that it was made under.
    saga BYTEA NOT NULL PRIMARY KEY,
    mark BIGINT NOT NULL
);

CREATE TABLE kinds (
    -- What few sagas differ in, with how many sagas are so: filters choose kinds, and counts need no look at sagas.
    id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    services TEXT NOT NULL,
    handlers TEXT NOT NULL,
    waits_for TEXT NOT NULL,
    sagas BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX kinds_differ ON kinds (type, state, outcome, md5(services || handlers || waits_for));

CREATE TABLE sagas (
    saga BYTEA NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    started BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    ended BIGINT,
    duration BIGINT NOT NULL,
    key TEXT NOT NULL,
    events INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    dead_letters INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    parent TEXT,
    until BIGINT,
    changes BIGINT,
    waits BYTEA
);
CREATE INDEX sagas_by_kind ON sagas (kind, started, saga);
CREATE INDEX sagas_by_start ON sagas (started, saga);
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
    "offset" BIGINT NOT NULL,
    saga BYTEA NOT NULL,
    PRIMARY KEY (follower, place, "offset", saga)
);

CREATE TABLE committed (
    follower INTEGER NOT NULL,
    place INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    PRIMARY KEY (follower, place)
);

CREATE TABLE commits (
    -- What groups had committed when; the older, the fewer.
    follower INTEGER NOT NULL,
    place INTEGER NOT NULL,
    at_ms BIGINT NOT NULL,
    "offset" BIGINT NOT NULL,
    PRIMARY KEY (follower, place, at_ms)
);

CREATE TABLE notes (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

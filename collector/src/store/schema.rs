//! Tables of the index.

/// Raised with every change of [`TABLES`]: an index of another version is made anew from the log. Raised as
/// well when the values of events change their meaning ([`buildtrail_query::values`]).
pub(super) const VERSION: i64 = 5;

/// Times are nanoseconds since 1970. 64-bit unsigned numbers are stored by their bits.
const TABLES: &str = "
CREATE TABLE state (
    next_record INTEGER NOT NULL,
    origin BLOB,
    damaged INTEGER NOT NULL,
    -- `reindex` has begun and not come to its end.
    rebuilding INTEGER NOT NULL
);
INSERT INTO state VALUES (0, NULL, 0, 0);

CREATE TABLE hosts (
    id INTEGER PRIMARY KEY,
    host_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    public_key BLOB NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    boot_id TEXT NOT NULL,
    last_sequence INTEGER NOT NULL,
    damaged INTEGER NOT NULL,
    record INTEGER NOT NULL
);

CREATE TABLE batches (
    host INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    record INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    PRIMARY KEY (host, number)
) WITHOUT ROWID;
CREATE INDEX batches_by_sequence ON batches (boot, first_sequence);
CREATE INDEX batches_by_record ON batches (record);

CREATE TABLE boots (
    id INTEGER PRIMARY KEY,
    host INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    UNIQUE (host, boot_id)
);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    repository TEXT NOT NULL,
    job BLOB NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    UNIQUE (job_id, host, repository)
);
CREATE INDEX jobs_by_time ON jobs (first_time);

CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    step_id TEXT NOT NULL,
    step BLOB NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    UNIQUE (job, number, step_id)
);

CREATE TABLE step_counts (
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (step, kind)
) WITHOUT ROWID;

-- What events share: host, boot and job, as they are encoded in each of them.
CREATE TABLE identities (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    job INTEGER,
    bytes BLOB NOT NULL,
    digest BLOB NOT NULL UNIQUE
);
CREATE INDEX identities_by_job ON identities (job);
CREATE INDEX identities_by_host ON identities (host);

-- The rest of each event. The id is the log's record and the place in the batch, so that rows are added at the end and
-- removed in runs.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_identity ON events (identity, kind, time);

-- Every value of an indexed field, once.
CREATE TABLE dictionary (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    field INTEGER NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (field, text)
);

-- Who used what: the events of one identity, kind and hour that have a value. Kinds are values, too: their rows are the
-- roll-ups of all events.
CREATE TABLE uses (
    value INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    PRIMARY KEY (value, hour, identity, kind)
) WITHOUT ROWID;
CREATE INDEX uses_by_identity ON uses (identity);

-- The values that belong to an identity as a whole.
CREATE TABLE identity_facts (
    value INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    PRIMARY KEY (value, identity)
) WITHOUT ROWID;
CREATE INDEX identity_facts_by_identity ON identity_facts (identity);

CREATE TABLE acts (
    record INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    host_id TEXT,
    entry BLOB NOT NULL
);
CREATE INDEX acts_by_time ON acts (time, record);
CREATE INDEX acts_by_host ON acts (host_id, record);
CREATE INDEX acts_by_kind ON acts (kind, record);
";

pub(super) fn create() -> String {
    format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
}

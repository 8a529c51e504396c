//! Tables of the index.

/// Raised with every change of [`TABLES`]: an index of another version is made anew from the log.
pub(super) const VERSION: i64 = 3;

/// Times are nanoseconds since 1970. 64-bit unsigned numbers are stored by their bits.
const TABLES: &str = "
CREATE TABLE state (
    next_record INTEGER NOT NULL,
    origin BLOB,
    damaged INTEGER NOT NULL
);
INSERT INTO state VALUES (0, NULL, 0);

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
    id INTEGER PRIMARY KEY,
    host INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    repository TEXT NOT NULL,
    job BLOB NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    UNIQUE (job_id, host)
);
CREATE INDEX jobs_by_time ON jobs (first_time);
CREATE INDEX jobs_by_repository ON jobs (repository, first_time);

CREATE TABLE job_counts (
    job INTEGER NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (job, kind)
) WITHOUT ROWID;

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

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    boot INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    host INTEGER NOT NULL,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job INTEGER,
    event BLOB NOT NULL,
    UNIQUE (boot, sequence)
);
CREATE INDEX events_by_time ON events (time, id);
CREATE INDEX events_by_kind ON events (kind, time, id);
CREATE INDEX events_by_job ON events (job, time, id);
CREATE INDEX events_by_host ON events (host, time, id);

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

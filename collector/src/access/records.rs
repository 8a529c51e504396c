//! What is kept of people: sessions, tokens, local administrators, revocations. Tables of `control.sqlite`.
//!
//! Like the rest of that file it cannot be made anew from the log. Of secrets it holds digests, of a local administrator's
//! device the key, without which its codes cannot be checked.

use std::path::Path;

use buildtrail_query::Scope;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Role, session::SessionId};
use crate::enrol::ControlError;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS people (
        name TEXT PRIMARY KEY, subject TEXT NOT NULL, role TEXT NOT NULL, scope TEXT NOT NULL, seen INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS revoked_people (
        name TEXT PRIMARY KEY, by TEXT NOT NULL, reason TEXT NOT NULL, time INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS web_sessions (
        id BLOB PRIMARY KEY, person TEXT NOT NULL, role TEXT NOT NULL, scope TEXT NOT NULL, created INTEGER NOT NULL,
        seen INTEGER NOT NULL, peer TEXT NOT NULL, browser TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS web_sessions_by_person ON web_sessions (person);
    CREATE TABLE IF NOT EXISTS api_tokens (
        id TEXT PRIMARY KEY, digest BLOB NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, role TEXT NOT NULL,
        scope TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS admins (
        name TEXT PRIMARY KEY, password TEXT NOT NULL, device BLOB NOT NULL, step INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0, locked_until INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS recovery_codes (
        admin TEXT NOT NULL, digest BLOB NOT NULL, UNIQUE (admin, digest)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS unrecorded_acts (number INTEGER PRIMARY KEY, act BLOB NOT NULL) STRICT;
";
/// Seconds after which it is noted again that a session or token was used: writing costs a sync.
const SEEN: i64 = 60;
/// Sessions of one person, and tokens of one owner, at a time.
const MAX_SESSIONS: i64 = 50;
const MAX_TOKENS: i64 = 100;
/// How long tokens that are of no more use are listed, in seconds.
const KEPT: i64 = 30 * 86_400;

/// A role and where it counts, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) role: Role,
    pub(crate) scope: Scope,
}

impl Rights {
    /// For people: `analyst of acme/*`.
    pub(crate) fn words(&self) -> String {
        format!("{} of {}", self.role, self.scope)
    }

    /// Whether whoever has these rights may give those away.
    pub(crate) fn include(&self, other: &Self) -> bool {
        self.role.includes(other.role) && self.scope.includes(&other.scope)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) id: Vec<u8>,
    pub(crate) person: String,
    pub(crate) rights: Rights,
    pub(crate) created: i64,
    pub(crate) seen: i64,
    pub(crate) peer: String,
    pub(crate) browser: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) rights: Rights,
    pub(crate) created: i64,
    pub(crate) expires: i64,
    pub(crate) used: i64,
    pub(crate) revoked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminRow {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) device: Vec<u8>,
    /// Of the last code that was used: none counts twice.
    pub(crate) step: i64,
    pub(crate) created: i64,
    pub(crate) failures: i64,
    pub(crate) locked_until: i64,
}

/// Times that bound a session, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionTimes {
    pub(crate) now: i64,
    pub(crate) idle: i64,
    pub(crate) lifetime: i64,
}

pub(crate) struct Records(Connection);

impl Records {
    pub(crate) fn open(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .busy_timeout(std::time::Duration::from_secs(5))
            .and_then(|()| connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"))
            .and_then(|()| connection.execute_batch(SCHEMA))
            .map_err(failed)?;
        Ok(Self(connection))
    }

    /// Whose name is taken by whom: the provider's subject, and the rights that the person had last.
    pub(crate) fn known(&self, name: &str) -> Result<Option<(String, Rights)>, ControlError> {
        let found = self.0.query_row("SELECT * FROM people WHERE name = ?1", [name], |row| {
            Ok((row.get("subject")?, rights(row)?))
        });
        Ok(found.optional()?)
    }

    pub(crate) fn remember(
        &self,
        name: &str,
        subject: &str,
        rights: &Rights,
        now: i64,
    ) -> Result<(), ControlError> {
        self.0.execute(
            "INSERT INTO people (name, subject, role, scope, seen) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET role = ?3, scope = ?4, seen = ?5",
            params![name, subject, rights.role.name(), scope_text(&rights.scope), now],
        )?;
        Ok(())
    }

    pub(crate) fn is_revoked(&self, name: &str) -> Result<bool, ControlError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM revoked_people WHERE name = ?1)";
        Ok(self.0.prepare_cached(sql)?.query_row([name], |row| row.get(0))?)
    }

    /// Ends all that stands for this person.
    pub(crate) fn revoke_person(
        &mut self,
        name: &str,
        by: &str,
        reason: &str,
        now: i64,
    ) -> Result<(), ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "INSERT OR IGNORE INTO revoked_people (name, by, reason, time) VALUES (?1, ?2, ?3, ?4)",
            params![name, by, reason, now],
        )?;
        transaction.execute("DELETE FROM web_sessions WHERE person = ?1", [name])?;
        transaction.execute("UPDATE api_tokens SET revoked = 1 WHERE owner = ?1", [name])?;
        Ok(transaction.commit()?)
    }

    /// Keeps a new session; the oldest ones of a person with too many end.
    pub(crate) fn add_session(
        &mut self,
        session: &SessionRow,
        times: SessionTimes,
    ) -> Result<(), ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "DELETE FROM web_sessions WHERE seen <= ?1 OR created <= ?2",
            [times.now - times.idle, times.now - times.lifetime],
        )?;
        transaction.execute(
            "DELETE FROM web_sessions WHERE id IN (SELECT id FROM web_sessions WHERE person = ?1
             ORDER BY created DESC LIMIT -1 OFFSET ?2)",
            params![session.person, MAX_SESSIONS - 1],
        )?;
        transaction.execute(
            "INSERT INTO web_sessions (id, person, role, scope, created, seen, peer, browser)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
            params![
                session.id,
                session.person,
                session.rights.role.name(),
                scope_text(&session.rights.scope),
                session.created,
                session.peer,
                session.browser
            ],
        )?;
        Ok(transaction.commit()?)
    }

    /// A session that is neither over nor idle for too long; it is used now.
    pub(crate) fn use_session(
        &self,
        id: &SessionId,
        times: SessionTimes,
    ) -> Result<Option<SessionRow>, ControlError> {
        let SessionTimes { now, idle, lifetime } = times;
        let sql = "SELECT * FROM web_sessions WHERE id = ?1 AND seen > ?2 AND created > ?3";
        let found = self
            .0
            .prepare_cached(sql)?
            .query_row(params![id.as_bytes(), now - idle, now - lifetime], session_row)
            .optional()?;
        if found.as_ref().is_some_and(|session| session.seen < now - SEEN.min(idle / 2)) {
            self.0.execute("UPDATE web_sessions SET seen = ?2 WHERE id = ?1", params![id.as_bytes(), now])?;
        }
        Ok(found)
    }

    /// Newest first.
    pub(crate) fn sessions_of(
        &self,
        person: &str,
        times: SessionTimes,
    ) -> Result<Vec<SessionRow>, ControlError> {
        let mut statement = self.0.prepare(
            "SELECT * FROM web_sessions WHERE person = ?1 AND seen > ?2 AND created > ?3 ORDER BY created DESC",
        )?;
        let rows = statement
            .query_map(params![person, times.now - times.idle, times.now - times.lifetime], session_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether this person had such a session.
    pub(crate) fn end_session(&self, person: &str, id: &[u8]) -> Result<bool, ControlError> {
        let sql = "DELETE FROM web_sessions WHERE id = ?1 AND person = ?2";
        Ok(self.0.execute(sql, params![id, person])? == 1)
    }

    /// Keeps a new token; `None`: its owner has too many.
    pub(crate) fn add_token(&mut self, token: &TokenRow) -> Result<Option<()>, ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute("DELETE FROM api_tokens WHERE expires < ?1", [token.created - KEPT])?;
        let count: i64 = transaction.query_row(
            "SELECT count(*) FROM api_tokens WHERE owner = ?1 AND revoked = 0",
            [&token.owner],
            |row| row.get(0),
        )?;
        if count >= MAX_TOKENS {
            return Ok(None);
        }
        transaction.execute(
            "INSERT INTO api_tokens (id, digest, name, owner, role, scope, created, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                token.id,
                token.digest,
                token.name,
                token.owner,
                token.rights.role.name(),
                scope_text(&token.rights.scope),
                token.created,
                token.expires
            ],
        )?;
        transaction.commit()?;
        Ok(Some(()))
    }

    pub(crate) fn token(&self, id: &str) -> Result<Option<TokenRow>, ControlError> {
        let mut statement = self.0.prepare_cached("SELECT * FROM api_tokens WHERE id = ?1")?;
        Ok(statement.query_row([id], token_row).optional()?)
    }

    pub(crate) fn token_used(&self, token: &TokenRow, now: i64) -> Result<(), ControlError> {
        if token.used < now - SEEN {
            self.0.execute("UPDATE api_tokens SET used = ?2 WHERE id = ?1", params![token.id, now])?;
        }
        Ok(())
    }

    /// Newest first; without an owner all.
    pub(crate) fn tokens(&self, owner: Option<&str>) -> Result<Vec<TokenRow>, ControlError> {
        let sql =
            "SELECT * FROM api_tokens WHERE ?1 IS NULL OR owner = ?1 ORDER BY created DESC, id LIMIT 10000";
        let mut statement = self.0.prepare(sql)?;
        let rows = statement.query_map([owner], token_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The owner, if there was such a token, of that owner if one is given.
    pub(crate) fn revoke_token(&self, id: &str, owner: Option<&str>) -> Result<Option<String>, ControlError> {
        let sql =
            "UPDATE api_tokens SET revoked = 1 WHERE id = ?1 AND (?2 IS NULL OR owner = ?2) RETURNING owner";
        Ok(self.0.query_row(sql, params![id, owner], |row| row.get(0)).optional()?)
    }

    /// Makes or replaces a local administrator, who gets these codes.
    pub(crate) fn put_admin(&mut self, admin: &AdminRow, codes: &[Vec<u8>]) -> Result<(), ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO admins (name, password, device, created) VALUES (?1, ?2, ?3, ?4)",
            params![admin.name, admin.password, admin.device, admin.created],
        )?;
        transaction.execute("DELETE FROM recovery_codes WHERE admin = ?1", [&admin.name])?;
        for code in codes {
            transaction.execute(
                "INSERT INTO recovery_codes (admin, digest) VALUES (?1, ?2)",
                params![admin.name, code],
            )?;
        }
        let person = format!("{}{}", super::LOCAL, admin.name);
        transaction.execute("DELETE FROM web_sessions WHERE person = ?1", [&person])?;
        transaction.execute("DELETE FROM revoked_people WHERE name = ?1", [&person])?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn admins(&self) -> Result<Vec<AdminRow>, ControlError> {
        let mut statement = self.0.prepare("SELECT * FROM admins ORDER BY name")?;
        let rows = statement.query_map([], admin_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn admin(&self, name: &str) -> Result<Option<AdminRow>, ControlError> {
        Ok(self.0.query_row("SELECT * FROM admins WHERE name = ?1", [name], admin_row).optional()?)
    }

    pub(crate) fn admin_failed(&self, name: &str, locked_until: i64) -> Result<(), ControlError> {
        let sql = "UPDATE admins SET failures = failures + 1, locked_until = ?2 WHERE name = ?1";
        self.0.execute(sql, params![name, locked_until])?;
        Ok(())
    }

    /// Takes a code's step for its one use. False: it, or a later one, was used already.
    pub(crate) fn take_step(&self, name: &str, step: i64) -> Result<bool, ControlError> {
        let sql = "UPDATE admins SET step = ?2, failures = 0, locked_until = 0 WHERE name = ?1 AND step < ?2";
        Ok(self.0.execute(sql, params![name, step])? == 1)
    }

    /// Takes a recovery code for its one use.
    pub(crate) fn take_recovery_code(&self, name: &str, digest: &[u8]) -> Result<bool, ControlError> {
        let sql = "DELETE FROM recovery_codes WHERE admin = ?1 AND digest = ?2";
        let taken = self.0.execute(sql, params![name, digest])? == 1;
        if taken {
            self.0.execute("UPDATE admins SET failures = 0, locked_until = 0 WHERE name = ?1", [name])?;
        }
        Ok(taken)
    }

    /// Keeps an act of another process until the collector can write it into its log.
    pub(crate) fn leave_act(&self, act: &[u8]) -> Result<(), ControlError> {
        self.0.execute("INSERT INTO unrecorded_acts (act) VALUES (?1)", [act])?;
        Ok(())
    }

    pub(crate) fn left_acts(&self) -> Result<Vec<(i64, Vec<u8>)>, ControlError> {
        let mut statement =
            self.0.prepare_cached("SELECT number, act FROM unrecorded_acts ORDER BY number LIMIT 100")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn act_recorded(&self, number: i64) -> Result<(), ControlError> {
        self.0.execute("DELETE FROM unrecorded_acts WHERE number = ?1", [number])?;
        Ok(())
    }
}

/// Globs hold no control characters, so a line each is unmistakable.
const EVERYTHING: &str = "\teverything";

fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::Everything => EVERYTHING.to_owned(),
        Scope::Repositories(globs) => globs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

fn rights(row: &Row<'_>) -> rusqlite::Result<Rights> {
    let (role, scope): (String, String) = (row.get("role")?, row.get("scope")?);
    let scope = if scope == EVERYTHING {
        Scope::Everything
    } else {
        Scope::Repositories(scope.lines().filter_map(|glob| glob.parse().ok()).collect())
    };
    // A role of a newer version allows here what the least one does.
    Ok(Rights { role: Role::parse(&role).unwrap_or(Role::Viewer), scope })
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get("id")?,
        person: row.get("person")?,
        rights: rights(row)?,
        created: row.get("created")?,
        seen: row.get("seen")?,
        peer: row.get("peer")?,
        browser: row.get("browser")?,
    })
}

fn token_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: row.get("id")?,
        digest: row.get("digest")?,
        name: row.get("name")?,
        owner: row.get("owner")?,
        rights: rights(row)?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        used: row.get("used")?,
        revoked: row.get("revoked")?,
    })
}

fn admin_row(row: &Row<'_>) -> rusqlite::Result<AdminRow> {
    Ok(AdminRow {
        name: row.get("name")?,
        password: row.get("password")?,
        device: row.get("device")?,
        step: row.get("step")?,
        created: row.get("created")?,
        failures: row.get("failures")?,
        locked_until: row.get("locked_until")?,
    })
}

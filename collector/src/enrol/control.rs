//! What must be remembered about tokens and hosts: one `SQLite` file, `control.sqlite` in the data directory.
//!
//! Unlike the index it is not derived from the log and must not be deleted: without it tokens are void and revoked hosts
//! come back.

use std::path::{Path, PathBuf};

use buildtrail_evidence::{
    id::{BootId, HostId},
    key::HostPublicKey,
};
use globset::Glob;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use super::{Machine, authority::Issued, token::JoinToken};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS tokens (
        id TEXT PRIMARY KEY, digest BLOB NOT NULL, name_pattern TEXT NOT NULL, created_by TEXT NOT NULL,
        created INTEGER NOT NULL, expires INTEGER NOT NULL, uses INTEGER NOT NULL, uses_left INTEGER NOT NULL,
        cancelled INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS hosts (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, key BLOB NOT NULL, state INTEGER NOT NULL, machine TEXT NOT NULL,
        token TEXT NOT NULL, enrolled INTEGER NOT NULL, expires INTEGER NOT NULL, seen INTEGER NOT NULL,
        renewed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX IF NOT EXISTS hosts_by_key ON hosts (key);
    CREATE TABLE IF NOT EXISTS boots (
        number INTEGER PRIMARY KEY, host TEXT NOT NULL, boot TEXT NOT NULL, UNIQUE (host, boot)
    ) STRICT;
    PRAGMA user_version = 1;
";
const VERSION: i64 = 1;
/// Boots of a host that are remembered.
const BOOTS: i64 = 256;
/// How long tokens that are of no more use are listed, in seconds.
const KEPT: i64 = 30 * 86_400;
/// Seconds after which it is noted again that a host was seen: writing costs a sync.
const SEEN: i64 = 30;
/// Tokens that may be valid at a time.
const MAX_TOKENS: i64 = 10_000;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// `SQLite`.
    #[error("{}: {source}; it holds tokens and revocations: restore it from a backup rather than delete it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// Written by a newer version.
    #[error("{} was written by a newer version of the collector; use that one", .0.display())]
    Newer(PathBuf),
    /// A query failed.
    #[error("the record of hosts and tokens failed: {0}")]
    Query(#[from] rusqlite::Error),
}

/// Whether a host's identity counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Cloned,
    Revoked,
}

impl State {
    fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Active,
            2 => Self::Cloned,
            _ => Self::Revoked,
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Active => 1,
            Self::Cloned => 2,
            Self::Revoked => 3,
        }
    }
}

/// How a boot id relates to those seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BootOrder {
    /// The one that was admitted last.
    Current,
    Unseen,
    /// Another one came after it, and boots do not return.
    Past,
}

/// Why a token or a key does not get a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    UnknownToken,
    Cancelled,
    Expired,
    UsedUp,
    Name,
    KeyCloned,
    KeyRevoked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) created_by: String,
    pub(crate) created: i64,
    pub(crate) expires: i64,
    pub(crate) uses: u32,
    pub(crate) uses_left: u32,
    pub(crate) name_pattern: String,
    pub(crate) cancelled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) token: String,
    pub(crate) enrolled: i64,
    pub(crate) expires: i64,
    pub(crate) seen: i64,
}

/// Who wants a certificate.
#[derive(Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) token: &'a JoinToken,
    pub(crate) name: &'a str,
    pub(crate) key: HostPublicKey,
    pub(crate) machine: &'a Machine,
}

/// Who got one.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) id: HostId,
    pub(crate) issued: Issued,
}

pub(crate) struct Control(Connection);

impl Control {
    pub(crate) fn open(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version > VERSION {
            return Err(ControlError::Newer(path.to_owned()));
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;",
            )
            .and_then(|()| connection.execute_batch(SCHEMA))
            .map_err(failed)?;
        Ok(Self(connection))
    }

    /// Keeps a new token. `None`: too many are valid already.
    pub(crate) fn add_token(
        &mut self,
        token: &JoinToken,
        about: &TokenRow,
        now: i64,
    ) -> Result<Option<()>, ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute("DELETE FROM tokens WHERE expires < ?1", [now - KEPT])?;
        let valid: i64 = transaction.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?;
        if valid >= MAX_TOKENS {
            return Ok(None);
        }
        transaction.execute(
            "INSERT INTO tokens (id, digest, name_pattern, created_by, created, expires, uses, uses_left)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            params![
                about.id,
                token.digest().as_bytes(),
                about.name_pattern,
                about.created_by,
                about.created,
                about.expires,
                about.uses
            ],
        )?;
        transaction.commit()?;
        Ok(Some(()))
    }

    /// Newest first.
    pub(crate) fn tokens(&self) -> Result<Vec<TokenRow>, ControlError> {
        let mut statement = self.0.prepare("SELECT * FROM tokens ORDER BY created DESC, id")?;
        let rows = statement.query_map([], token_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether there was such a token.
    pub(crate) fn cancel_token(&self, id: &str) -> Result<bool, ControlError> {
        Ok(self.0.execute("UPDATE tokens SET cancelled = 1 WHERE id = ?1", [id])? == 1)
    }

    /// Takes a token for a certificate that `issue` makes. Whoever asks again with the same token and key, because the
    /// answer was lost, does not use it up again; a known key keeps its host id.
    pub(crate) fn enrol<E: From<ControlError>>(
        &mut self,
        applicant: &Applicant<'_>,
        now: i64,
        issue: impl FnOnce(&HostId) -> Result<Issued, E>,
    ) -> Result<Result<Enrolled, Unfit>, E> {
        let transaction = self.0.transaction().map_err(ControlError::from)?;
        let known = host_of_key(&transaction, &applicant.key)?;
        let checked = check_token(&transaction, applicant, known.as_ref(), now)?;
        let id = match (checked, known) {
            (Err(unfit), _) => return Ok(Err(unfit)),
            (Ok(()), Some(host)) => host.id,
            (Ok(()), None) => Uuid::now_v7().to_string(),
        };
        let Ok(id) = HostId::parse(&id) else { return Ok(Err(Unfit::KeyRevoked)) };
        let issued = issue(&id)?;
        let kept = transaction.execute(
            "INSERT INTO hosts (id, name, key, state, machine, token, enrolled, expires, seen)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?6)
             ON CONFLICT (id) DO UPDATE SET name = ?2, machine = ?4, token = ?5, enrolled = ?6, expires = ?7, seen = ?6",
            params![
                id.as_str(),
                applicant.name,
                &applicant.key.as_bytes()[..],
                applicant.machine.as_str(),
                applicant.token.id(),
                now,
                issued.expires
            ],
        );
        kept.and_then(|_| transaction.commit()).map_err(ControlError::from)?;
        Ok(Ok(Enrolled { id, issued }))
    }

    /// What is known about a host that shows a valid certificate; one that was issued by hand becomes known here.
    pub(crate) fn meet(&mut self, host: &crate::peer::Host, now: i64) -> Result<State, ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "INSERT INTO hosts (id, name, key, state, machine, token, enrolled, expires, seen)
             VALUES (?1, ?2, ?3, 1, '', '', ?4, ?5, ?4)
             ON CONFLICT (id) DO UPDATE SET seen = ?4, expires = max(expires, ?5)
             WHERE seen < ?4 - ?6 OR expires < ?5",
            params![host.id.as_str(), host.name, &host.key.as_bytes()[..], now, host.expires, SEEN],
        )?;
        let state = transaction.query_row(
            "SELECT max(state) FROM hosts WHERE id = ?1 OR key = ?2",
            params![host.id.as_str(), &host.key.as_bytes()[..]],
            |row| row.get(0),
        )?;
        transaction.commit()?;
        Ok(State::from_number(state))
    }

    pub(crate) fn order_of(&self, host: &HostId, boot: &BootId) -> Result<BootOrder, ControlError> {
        let number = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            self.0.query_row(sql, values, |row| row.get::<_, Option<i64>>(0)).optional().map(Option::flatten)
        };
        let (host, boot) = (host.as_str(), boot.as_str());
        let seen = number("SELECT number FROM boots WHERE host = ?1 AND boot = ?2", &[&host, &boot])?;
        let newest = number("SELECT max(number) FROM boots WHERE host = ?1", &[&host])?;
        Ok(match seen {
            None => BootOrder::Unseen,
            Some(_) if seen == newest => BootOrder::Current,
            Some(_) => BootOrder::Past,
        })
    }

    /// Makes `boot` the host's current one, and remembers on which machine it runs.
    pub(crate) fn admit(
        &mut self,
        host: &HostId,
        boot: &BootId,
        machine: &Machine,
    ) -> Result<(), ControlError> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "INSERT OR IGNORE INTO boots (host, boot) VALUES (?1, ?2)",
            [host.as_str(), boot.as_str()],
        )?;
        transaction.execute(
            "DELETE FROM boots WHERE host = ?1 AND number <= (SELECT number FROM boots WHERE host = ?1
             ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            params![host.as_str(), BOOTS],
        )?;
        transaction.execute(
            "UPDATE hosts SET machine = ?2 WHERE id = ?1 AND machine <> ?2",
            [host.as_str(), machine.as_str()],
        )?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn set_state(&self, host: &HostId, state: State) -> Result<(), ControlError> {
        // What was revoked stays revoked.
        self.0.execute(
            "UPDATE hosts SET state = max(state, ?2) WHERE id = ?1",
            params![host.as_str(), state.number()],
        )?;
        Ok(())
    }

    /// Remembers a renewal; false, and nothing remembered, when the last one was less than `pause` seconds ago.
    pub(crate) fn renewed(
        &self,
        host: &HostId,
        expires: i64,
        now: i64,
        pause: i64,
    ) -> Result<bool, ControlError> {
        let changed = self.0.execute(
            "UPDATE hosts SET expires = ?2, renewed = ?3 WHERE id = ?1 AND renewed <= ?3 - ?4",
            params![host.as_str(), expires, now, pause],
        )?;
        Ok(changed == 1)
    }

    /// By name.
    pub(crate) fn hosts(&self) -> Result<Vec<HostRow>, ControlError> {
        self.hosts_where("?1 = ''", "")
    }

    /// Those of this id, or else of this name.
    pub(crate) fn find_hosts(&self, id_or_name: &str) -> Result<Vec<HostRow>, ControlError> {
        let by_id = self.hosts_where("id = ?1", id_or_name)?;
        if by_id.is_empty() { self.hosts_where("name = ?1", id_or_name) } else { Ok(by_id) }
    }

    fn hosts_where(&self, condition: &str, value: &str) -> Result<Vec<HostRow>, ControlError> {
        let sql = format!("SELECT * FROM hosts WHERE {condition} ORDER BY name, id");
        let mut statement = self.0.prepare(&sql)?;
        let rows = statement.query_map([value], host_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn check_token(
    transaction: &Transaction<'_>,
    applicant: &Applicant<'_>,
    known: Option<&HostRow>,
    now: i64,
) -> Result<Result<(), Unfit>, ControlError> {
    let id = applicant.token.id();
    let found = transaction
        .query_row("SELECT * FROM tokens WHERE id = ?1", [&id], |row| {
            Ok((token_row(row)?, row.get::<_, Vec<u8>>("digest")?))
        })
        .optional()?;
    let Some((token, _)) = found.filter(|(_, digest)| digest == applicant.token.digest().as_bytes()) else {
        return Ok(Err(Unfit::UnknownToken));
    };
    match known.map(|host| host.state) {
        Some(State::Cloned) => return Ok(Err(Unfit::KeyCloned)),
        Some(State::Revoked) => return Ok(Err(Unfit::KeyRevoked)),
        Some(State::Active) | None => {}
    }
    if token.cancelled {
        return Ok(Err(Unfit::Cancelled));
    }
    if token.expires <= now {
        return Ok(Err(Unfit::Expired));
    }
    if !name_matches(&token.name_pattern, applicant.name) {
        return Ok(Err(Unfit::Name));
    }
    if known.is_some_and(|host| host.token == id) {
        return Ok(Ok(()));
    }
    let used = transaction
        .execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1 AND uses_left > 0", [&id])?;
    Ok(if used == 1 { Ok(()) } else { Err(Unfit::UsedUp) })
}

/// An unreadable pattern matches nothing; they are checked before they are kept.
fn name_matches(pattern: &str, name: &str) -> bool {
    pattern.is_empty() || Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

fn host_of_key(transaction: &Transaction<'_>, key: &HostPublicKey) -> Result<Option<HostRow>, ControlError> {
    let found = transaction.query_row(
        "SELECT * FROM hosts WHERE key = ?1 ORDER BY state DESC LIMIT 1",
        [&key.as_bytes()[..]],
        host_row,
    );
    Ok(found.optional()?)
}

fn token_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: row.get("id")?,
        created_by: row.get("created_by")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        uses: row.get("uses")?,
        uses_left: row.get("uses_left")?,
        name_pattern: row.get("name_pattern")?,
        cancelled: row.get("cancelled")?,
    })
}

fn host_row(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    Ok(HostRow {
        id: row.get("id")?,
        name: row.get("name")?,
        state: State::from_number(row.get("state")?),
        token: row.get("token")?,
        enrolled: row.get("enrolled")?,
        expires: row.get("expires")?,
        seen: row.get("seen")?,
    })
}

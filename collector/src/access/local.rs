//! Local administrators: for when the identity provider is down. Password and a device's code, or a recovery code; slow to
//! guess, loud when used.

use std::path::Path;

use buildtrail_evidence::id::is_valid_id;
use buildtrail_proto::v1::{AdministratorChanged, CollectorEntry, collector_entry::Act};
use prost::Message as _;

use super::{
    Access, LOCAL,
    gate::Refused,
    password::{self, MAX_PASSWORD, MIN_PASSWORD, PasswordError},
    people::now,
    records::{AdminRow, Records},
};
use crate::{acts, enrol::ControlError};

/// Failures in a row that are forgiven …
const FORGIVEN: i64 = 5;
/// … and how long the account is closed after the next one, in seconds; each further one doubles it up to the longest.
const CLOSED: i64 = 30;
const LONGEST: i64 = 15 * 60;

/// A local administrator cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The name.
    #[error("{0:?} is not usable as a name: use 1 to 64 letters, digits, '.', '_' or '-'")]
    Name(String),
    /// The password.
    #[error("the password must have 12 to 1024 characters")]
    Password,
    /// There is one already.
    #[error("administrator {0} exists; `admin reset` gives a new password, device and codes")]
    Exists(String),
    /// There is none.
    #[error("there is no administrator {0}; `admin list` shows them")]
    Missing(String),
    /// Random numbers or hashing.
    #[error("{0}")]
    Hash(String),
    /// The record of people.
    #[error(transparent)]
    Records(#[from] ControlError),
}

impl From<PasswordError> for AdminError {
    fn from(error: PasswordError) -> Self {
        Self::Hash(error.to_string())
    }
}

/// What a new administrator must keep; it is shown this once.
#[derive(Debug)]
pub struct NewAdmin {
    /// For an authenticator program, by hand.
    pub device: String,
    /// The same as an address, for a QR code.
    pub uri: String,
    /// Each stands in for the device once.
    pub recovery_codes: Vec<String>,
}

/// Makes an administrator in the record of people at `file`, or gives a known one everything anew if `reset`. `by` says
/// who did it, for the collector's log.
///
/// # Errors
/// Name or password are not usable, the name is taken or, with `reset`, not, or the file cannot be written.
pub fn put(file: &Path, name: &str, password: &str, reset: bool, by: &str) -> Result<NewAdmin, AdminError> {
    if !is_valid_id(name) || name.len() > 64 || name.contains(':') {
        return Err(AdminError::Name(name.to_owned()));
    }
    if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return Err(AdminError::Password);
    }
    let mut records = Records::open(file)?;
    match (records.admin(name)?.is_some(), reset) {
        (true, false) => return Err(AdminError::Exists(name.to_owned())),
        (false, true) => return Err(AdminError::Missing(name.to_owned())),
        _ => {}
    }
    let device = password::new_device()?;
    let (recovery_codes, kept) = password::recovery_codes()?;
    let admin = AdminRow {
        name: name.to_owned(),
        password: password::hash(password)?,
        device: device.clone(),
        step: 0,
        created: now(),
        failures: 0,
        locked_until: 0,
    };
    let what = if reset { "reset" } else { "created" };
    let act = AdministratorChanged { name: format!("{LOCAL}{name}"), what: what.into(), by: by.to_owned() };
    let entry: CollectorEntry = acts::entry(Act::AdministratorChanged(act));
    // First the act: a change without one must not be.
    records.leave_act(&entry.encode_to_vec())?;
    records.put_admin(&admin, &kept)?;
    Ok(NewAdmin {
        device: password::device_text(&device),
        uri: password::device_uri(name, &device),
        recovery_codes,
    })
}

/// Names of the administrators, and when they were made (seconds since the epoch).
///
/// # Errors
/// The file cannot be read.
pub fn list(file: &Path) -> Result<Vec<(String, i64)>, AdminError> {
    let admins = Records::open(file)?.admins()?;
    Ok(admins.into_iter().map(|admin| (admin.name, admin.created)).collect())
}

/// What somebody typed.
pub(super) struct Typed {
    pub(super) name: String,
    pub(super) password: String,
    /// Of the device, or a recovery code.
    pub(super) code: String,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Good {
        recovery_code: bool,
    },
    /// For the log; whoever typed learns only that something was wrong.
    Bad(&'static str),
}

impl Access {
    /// Checks name, password and code. Takes as long for unknown names as for known ones.
    pub(super) async fn check(&self, typed: Typed) -> Result<Outcome, Refused> {
        let name: String = typed.name.chars().take(64).collect();
        let admin = self.admin(&name).await?;
        let now = now();
        let (kept, known) = match &admin {
            Some(admin) => (admin.password.clone(), true),
            None => (UNKNOWN.to_owned(), false),
        };
        let Ok(_place) = self.inner().hashing.acquire().await else { return Err(Refused::Unavailable) };
        let password: String = typed.password.chars().take(MAX_PASSWORD).collect();
        let checked = tokio::task::spawn_blocking(move || password::verify(&password, &kept)).await;
        let fits = checked.unwrap_or(false);
        let Some(admin) = admin.filter(|_| known) else {
            return Ok(Outcome::Bad("there is no such administrator"));
        };
        if admin.locked_until > now {
            return Ok(Outcome::Bad("closed after too many failures"));
        }
        if !fits {
            return self.closer(admin, "wrong password").await;
        }
        let code: String = typed.code.chars().filter(|c| !c.is_whitespace()).take(64).collect();
        let (person, step) = (name.clone(), password::step_of(&code, &admin.device, now));
        let digest = password::recovery_digest(&code);
        let taken = self
            .with_records(move |records| match step {
                Some(step) => Ok(records.take_step(&person, step)?.then_some(false)),
                None => Ok(records.take_recovery_code(&person, &digest)?.then_some(true)),
            })
            .await?;
        match taken {
            Some(recovery_code) => Ok(Outcome::Good { recovery_code }),
            None => self.closer(admin, "wrong or used code").await,
        }
    }

    async fn closer(&self, admin: AdminRow, why: &'static str) -> Result<Outcome, Refused> {
        let beyond = admin.failures + 1 - FORGIVEN;
        let closed = if beyond > 0 { (CLOSED << (beyond - 1).min(5)).min(LONGEST) } else { 0 };
        let until = now() + closed;
        self.with_records(move |records| records.admin_failed(&admin.name, until)).await?;
        Ok(Outcome::Bad(why))
    }
}

/// A hash that no password fits, as costly to check as a real one.
const UNKNOWN: &str = "argon2id$19456,2$00000000000000000000000000000000$\
                       0000000000000000000000000000000000000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administrators_are_made_once_and_reset_only_if_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.sqlite");
        let made = put(&file, "root", "a long enough password", false, "user 0").unwrap();
        assert!(made.uri.contains(&made.device) && made.recovery_codes.len() == 10);
        assert!(matches!(
            put(&file, "root", "a long enough password", false, ""),
            Err(AdminError::Exists(_))
        ));
        assert!(matches!(put(&file, "eve", "a long enough password", true, ""), Err(AdminError::Missing(_))));
        assert!(matches!(put(&file, "eve", "short", false, ""), Err(AdminError::Password)));
        for name in ["", "a b", "local:root", &"x".repeat(65)] {
            assert!(matches!(
                put(&file, name, "a long enough password", false, ""),
                Err(AdminError::Name(_))
            ));
        }
        let again = put(&file, "root", "another long password", true, "user 0").unwrap();
        assert_ne!(again.device, made.device);
        assert_eq!(list(&file).unwrap().len(), 1);
        assert_eq!(Records::open(&file).unwrap().left_acts().unwrap().len(), 2, "each change is an act");
        let kept = std::fs::read(&file).unwrap();
        let holds = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds("a long enough password") && !holds(&made.recovery_codes[0]));
    }
}

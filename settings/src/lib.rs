//! Reads TOML settings and explains mistakes so that a person can correct them without a manual.
//!
//! In: a path or the text of a settings file, and a type that implements `serde::Deserialize`
//! (with `#[serde(deny_unknown_fields)]`, otherwise wrong keys go unnoticed). Out: the value, or a [`SettingsError`]
//! that names file, line, column, key, what was expected and the nearest valid key.
//! Must never panic on any input, read more than [`MAX_BYTES`], or know what a particular setting means: rules over
//! several keys are passed in as a check.

mod error;
mod explain;
mod locate;
mod span;

use std::{fs::File, io::Read as _, path::Path};

use serde::de::DeserializeOwned;

pub use error::{Mistake, SettingsError};
pub use span::{Span, SpanError};

/// Largest settings file that is read, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// A value that is well-formed but not acceptable, found by a check over the whole settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted path of the key, for example `spool.max_bytes`; entries of a list count from 0
    /// (`catalog.files.0.path`).
    pub key: String,
    /// What is wrong and what would be right, without the key and without a final full stop.
    pub problem: String,
}

impl Invalid {
    /// A problem with the value of `key` (a dotted path).
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// Reads settings from a file.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_BYTES`], is not UTF-8 or not TOML, or does not fit `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    load_checked(path, |_| Ok(()))
}

/// Like [`load`], and then asks `check` whether the values go together; its answer is reported with the line of the
/// key that it names.
///
/// # Errors
/// Those of [`load`], and whatever `check` finds.
pub fn load_checked<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<T, SettingsError> {
    parse_checked(&read(path)?, path, check)
}

/// Reads settings from text; `path` only appears in messages.
///
/// # Errors
/// The text is not TOML or does not fit `T`.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, SettingsError> {
    parse_checked(text, path, |_| Ok(()))
}

/// Like [`parse`], and then asks `check`; see [`load_checked`].
///
/// # Errors
/// Those of [`parse`], and whatever `check` finds.
pub fn parse_checked<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<T, SettingsError> {
    let value = toml::from_str(text).map_err(|error| explain::toml_error(&error, text, path))?;
    check(&value).map_err(|invalid| explain::failed_check(&invalid, text, path))?;
    Ok(value)
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let unreadable = |source| SettingsError::Read { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(SettingsError::TooBig { path: path.into() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let lines_before = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
        SettingsError::NotUtf8 { path: path.into(), line: lines_before + 1 }
    })
}

#[cfg(test)]
mod tests;

//! What can be wrong with settings, in sentences for the person who wrote them.

use std::{fmt, io, path::PathBuf};

use crate::MAX_BYTES;

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is missing or the system refused to read it.
    #[error("cannot read settings file {}: {}", path.display(), reason(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`MAX_BYTES`].
    #[error("settings file {} is larger than {MAX_BYTES} bytes: is it the right file?", path.display())]
    TooBig {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{}:{line}: not UTF-8 text: is it the right file?", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first byte that is not UTF-8, from 1.
        line: usize,
    },
    /// The text is not TOML, or a key or value is wrong.
    #[error(transparent)]
    Mistake(#[from] Box<Mistake>),
}

fn reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => source.to_string(),
    }
}

/// One wrong place in a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named by the caller.
    pub path: PathBuf,
    /// From 1; absent when the mistake is that something is not in the file at all.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// Dotted path of the key, where the place belongs to one.
    pub key: Option<String>,
    /// What is wrong, in one sentence without full stop, control characters escaped.
    pub problem: String,
    /// The valid key or value nearest to the wrong one, where one is near.
    pub nearest: Option<String>,
    /// All valid keys or values of the place, where they are known.
    pub valid: Vec<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        for position in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{position}")?;
        }
        write!(f, ": {}", self.problem)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        if !self.valid.is_empty() {
            write!(f, " (valid here: {})", self.valid.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistake {}

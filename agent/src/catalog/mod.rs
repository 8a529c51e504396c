//! What counts as a secret and as its use.
//!
//! In: paths, commands, addresses, names. Out: the catalogue entry, or none. Must never need a secret's value to decide.

pub mod arguments;
pub mod commands;
pub mod delegates;
pub mod files;
pub mod heirlooms;
pub mod metadata;
pub mod relocations;
pub mod runners;
pub mod secret_paths;
pub mod sockets;
pub mod variables;

/// An entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What people call it.
    pub name: String,
    /// Kind of credential: "aws", "npm", "ssh", …
    pub family: String,
}

impl Entry {
    fn new(name: &str, family: &str) -> Self {
        Self { name: name.to_owned(), family: family.to_owned() }
    }
}

/// The last component of a path.
pub(crate) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

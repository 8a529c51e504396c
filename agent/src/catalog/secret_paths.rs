//! Which secret a path is, when a file is known by its path alone.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    Entry,
    files::{self, Anywhere, FileName},
};
use crate::config;

/// The catalogue, by directory, and what is a secret wherever it lies.
#[derive(Debug, Default)]
pub struct SecretPaths {
    places: HashMap<PathBuf, Vec<(FileName, Rc<Entry>)>>,
    anywhere: Vec<Anywhere>,
}

impl SecretPaths {
    /// As the settings say. Directories that are symbolic links are known by where these lead now.
    #[must_use]
    pub fn new(settings: &config::Catalog) -> Self {
        let mut places: HashMap<PathBuf, Vec<(FileName, Rc<Entry>)>> = HashMap::new();
        for target in files::targets(settings) {
            let directory = fs::canonicalize(&target.directory).unwrap_or(target.directory);
            places.entry(directory).or_default().push((target.name, target.entry));
        }
        Self { places, anywhere: files::anywhere() }
    }

    /// The entry.
    #[must_use]
    pub fn entry(&self, path: &[u8]) -> Option<Rc<Entry>> {
        let as_path = Path::new(OsStr::from_bytes(path));
        let in_place = || {
            let name = as_path.file_name()?;
            self.places.get(as_path.parent()?)?.iter().find(|(target, _)| target.matches(name))
        };
        let anywhere = || self.anywhere.iter().find(|anywhere| anywhere.matches(path));
        in_place().map(|(_, entry)| entry).or_else(|| anywhere().map(|found| &found.entry)).map(Rc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Catalog, CatalogFile};

    #[test]
    fn declared_places_and_names_that_are_secrets_anywhere_are_known() {
        let file =
            CatalogFile { name: "deploy key".into(), family: "ssh".into(), path: "/srv/keys/d_*".into() };
        let paths = SecretPaths::new(&Catalog { homes: Vec::new(), files: vec![file] });
        let name = |path: &str| paths.entry(path.as_bytes()).map(|entry| entry.name.clone());
        assert_eq!(name("/srv/keys/d_1").as_deref(), Some("deploy key"));
        assert_eq!(name("/anywhere/.npmrc").as_deref(), Some("npm configuration"));
        assert_eq!(name("/srv/keys/other"), None);
        assert_eq!(name(""), None);
    }
}

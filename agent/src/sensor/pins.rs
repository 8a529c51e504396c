//! Keeps programs attached while no agent runs, so that a restart or an upgrade misses nothing.
//!
//! In: the operator's directory on a BPF file system. Out: what an earlier agent left there, ready to be taken over. Each
//! build with its settings has a directory of its own, which gets its name only when everything is in it: what a crash
//! left half made is removed. Must never stop an agent from starting: what cannot be used is taken away or reported.
//!
//! Layout: `<directory>/<abi>_<build>/map_<NAME>` and `…/link_<hook>_<candidate>_<n>`. Names on this file system have no
//! dots (kernel/bpf/inode.c, `bpf_lookup`).

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData},
    pin::PinError,
    programs::links::{FdLink, LinkError, PinnedLink},
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

/// What does not have its final name yet.
const UNFINISHED: &str = "new_";
/// Digits of the digests in a directory's name.
const DIGITS: usize = 16;

/// Which records a build's programs make, and which build it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    abi: String,
    build: String,
}

impl Generation {
    /// `abi` is the text of the record layouts; `build` everything that the programs and their maps depend on.
    #[must_use]
    pub fn new(abi: &[&[u8]], build: &[&[u8]]) -> Self {
        Self { abi: short_digest(abi), build: short_digest(build) }
    }

    fn name(&self) -> String {
        format!("{}_{}", self.abi, self.build)
    }
}

fn short_digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())[..DIGITS].to_owned()
}

/// Which attachment a pinned link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    /// A hook as a number.
    pub hook: u16,
    /// Position among the ways to serve it.
    pub candidate: usize,
}

/// The operator's directory.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    generation: Generation,
    _lock: Flock<File>,
}

/// What an earlier agent of the same build left: take it over.
#[derive(Debug)]
pub struct Adopted {
    /// The programs' maps by name.
    pub maps: HashMap<String, Map>,
    /// What is attached.
    pub links: Vec<LinkName>,
}

/// What an agent of another build left, still attached.
#[derive(Debug)]
pub struct Predecessor {
    directory: PathBuf,
    /// Its records have the layout of this build.
    pub readable: bool,
}

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not on a BPF file system.
    #[error(
        "{0} is not on a BPF file system: mount one there (`mount -t bpf bpf /sys/fs/bpf`), or leave sensor.pin_directory out"
    )]
    NotBpf(PathBuf),
    /// Another agent uses the directory.
    #[error("{0} is in use by another agent: stop that one, or give this one another sensor.pin_directory")]
    InUse(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A map or link could not be pinned.
    #[error("cannot pin: {0}")]
    Pin(#[from] PinError),
}

impl Pins {
    /// Opens the directory, making it where it is missing.
    ///
    /// # Errors
    ///
    /// [`PinsError`] when it is not on a BPF file system or cannot be made.
    pub fn open(directory: &Path, generation: Generation) -> Result<Self, PinsError> {
        let system = |source| PinsError::System { path: directory.to_owned(), source };
        let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let kind = statfs(existing).map_err(|error| system(error.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinsError::NotBpf(directory.to_owned()));
        }
        fs::create_dir_all(directory).map_err(system)?;
        let lock = lock(directory)?;
        Ok(Self { directory: directory.to_owned(), generation, _lock: lock })
    }

    /// What an earlier agent of this build left, unless it cannot be used; that is removed then.
    #[must_use]
    pub fn adopt(&self) -> Option<Adopted> {
        let directory = self.directory.join(self.generation.name());
        if !directory.is_dir() {
            return None;
        }
        match read(&directory) {
            Ok(adopted) => Some(adopted),
            Err(error) => {
                warn!(%error, directory = %directory.display(), "pinned programs cannot be taken over; loading anew");
                remove(&directory);
                None
            }
        }
    }

    /// What agents of other builds left. Removes what was never finished.
    #[must_use]
    pub fn predecessors(&self) -> Vec<Predecessor> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                remove(&entry.path());
            } else if name != self.generation.name()
                && let Some((abi, _)) = name.split_once('_')
            {
                let readable = abi == self.generation.abi;
                found.push(Predecessor { directory: entry.path(), readable });
            }
        }
        found
    }

    /// Begins a directory for this build.
    ///
    /// # Errors
    ///
    /// [`PinsError::System`]
    pub fn begin(&self) -> Result<Unfinished, PinsError> {
        let directory = self.directory.join(format!("{UNFINISHED}{}", self.generation.name()));
        remove(&directory);
        fs::create_dir(&directory).map_err(|source| PinsError::System { path: directory.clone(), source })?;
        Ok(Unfinished {
            directory,
            finished: self.directory.join(self.generation.name()),
            links: 0,
            held: Vec::new(),
        })
    }
}

/// A directory in the making. Dropping it before it is finished takes everything away again.
#[derive(Debug)]
pub struct Unfinished {
    directory: PathBuf,
    finished: PathBuf,
    links: usize,
    held: Vec<PinnedLink>,
}

impl Unfinished {
    /// Pins a link, and keeps it.
    ///
    /// # Errors
    ///
    /// [`PinsError::Pin`]; the link is gone then.
    pub fn keep(&mut self, name: LinkName, link: FdLink) -> Result<(), PinsError> {
        let file = format!("link_{}_{}_{}", name.hook, name.candidate, self.links);
        self.links += 1;
        self.held.push(link.pin(self.directory.join(file))?);
        Ok(())
    }

    /// Pins the maps and gives the directory its name.
    ///
    /// # Errors
    ///
    /// [`PinsError`]; nothing stays pinned then, and the links are gone.
    pub fn finish(mut self, maps: &HashMap<String, Map>) -> Result<(), PinsError> {
        for (name, map) in maps {
            map.pin(self.directory.join(format!("map_{name}")))?;
        }
        fs::rename(&self.directory, &self.finished)
            .map_err(|source| PinsError::System { path: self.finished.clone(), source })?;
        self.held.clear();
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.directory.exists() {
            remove(&self.directory);
        }
    }
}

impl Predecessor {
    /// One of its maps.
    ///
    /// # Errors
    ///
    /// When it is not there or cannot be opened.
    pub fn map(&self, name: &str) -> Result<Map, String> {
        open_map(&self.directory.join(format!("map_{name}")))
    }

    /// Detaches its programs; its maps stay until it is removed.
    pub fn detach(&self) {
        for (path, _) in links_in(&self.directory) {
            if let Err(error) = fs::remove_file(&path) {
                warn!(%error, path = %path.display(), "an earlier agent's program cannot be detached");
            }
        }
    }

    /// Takes away what is left.
    pub fn remove(self) {
        info!(directory = %self.directory.display(), "an earlier agent's programs are replaced");
        remove(&self.directory);
    }
}

/// Detaches everything that agents left in `directory`. Returns how many builds that were.
///
/// # Errors
///
/// When an agent runs or the directory cannot be read.
pub fn detach_all(directory: &Path) -> Result<usize, PinsError> {
    let system = |source| PinsError::System { path: directory.to_owned(), source };
    if !directory.exists() {
        return Ok(0);
    }
    let _lock = lock(directory)?;
    let mut builds = 0;
    for entry in fs::read_dir(directory).map_err(system)? {
        remove(&entry.map_err(system)?.path());
        builds += 1;
    }
    fs::remove_dir(directory).map_err(system)?;
    Ok(builds)
}

/// Held as long as an agent runs.
fn lock(directory: &Path) -> Result<Flock<File>, PinsError> {
    let system = |source| PinsError::System { path: directory.to_owned(), source };
    let file = File::open(directory).map_err(system)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => PinsError::InUse(directory.to_owned()),
        error => system(error.into()),
    })
}

fn read(directory: &Path) -> Result<Adopted, String> {
    let mut links = Vec::new();
    for (path, name) in links_in(directory) {
        let opened = PinnedLink::from_pin(&path).map_err(|error: LinkError| error.to_string())?;
        drop(opened);
        links.push(name.ok_or_else(|| format!("{} is no link of this agent", path.display()))?);
    }
    links.sort();
    links.dedup();
    let mut maps = HashMap::new();
    for entry in fs::read_dir(directory).map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix("map_") {
            maps.insert(name.to_owned(), open_map(&entry.path())?);
        }
    }
    Ok(Adopted { maps, links })
}

fn open_map(path: &Path) -> Result<Map, String> {
    let data = MapData::from_pin(path).map_err(|error| error.to_string())?;
    Map::from_map_data(data).map_err(|error| error.to_string())
}

fn links_in(directory: &Path) -> Vec<(PathBuf, Option<LinkName>)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Some((entry.path(), parse_link(name.strip_prefix("link_")?)))
    });
    links.collect()
}

fn parse_link(name: &str) -> Option<LinkName> {
    let mut parts = name.split('_');
    Some(LinkName { hook: parts.next()?.parse().ok()?, candidate: parts.next()?.parse().ok()? })
}

/// Files, then the directory; what cannot be removed is told and left.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            warn!(%error, path = %entry.path().display(), "cannot remove a pin");
        }
    }
    if directory.exists()
        && let Err(error) = fs::remove_dir(directory)
    {
        warn!(%error, directory = %directory.display(), "cannot remove a directory of pins");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpf_file_system_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let generation = Generation::new(&[b"abi"], &[b"build"]);
        let error = Pins::open(&directory.path().join("pins"), generation).unwrap_err();
        assert!(matches!(error, PinsError::NotBpf(_)), "{error}");
        assert!(!directory.path().join("pins").exists());
    }

    #[test]
    fn a_links_name_tells_hook_and_candidate() {
        assert_eq!(parse_link("17_1_4"), Some(LinkName { hook: 17, candidate: 1 }));
        assert_eq!(parse_link("x_1_4"), None);
    }

    #[test]
    fn generations_differ_by_abi_and_by_build() {
        let one = Generation::new(&[b"a"], &[b"b"]);
        assert_eq!(one, Generation::new(&[b"a"], &[b"b"]));
        assert_ne!(one.name(), Generation::new(&[b"a"], &[b"c"]).name());
        assert_ne!(one.abi, Generation::new(&[b"b"], &[b"b"]).abi);
    }
}

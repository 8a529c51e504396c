//! Where runners' own files are.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::catalog::runners;

/// Places that are remembered.
const MAX_HOMES: usize = 256;
/// Files by which a directory is a runner's own.
const SIGNS: [&str; 3] = [".runner", ".agent", "buildbot.tac"];
/// Below such a directory these are the runner's; others are its jobs'.
const OWN: [&str; 6] = ["bin", "externals", "conf", "lib", "plugins", "hooks"];

/// Directories and programs, with their platforms.
#[derive(Debug, Default)]
pub(super) struct RunnerHomes(HashMap<PathBuf, String>);

impl RunnerHomes {
    /// A runner's program, and the directory around it if that is a runner's own.
    pub(super) fn add(&mut self, executable: &[u8], platform: &str) {
        let program = Path::new(OsStr::from_bytes(executable));
        let nearby = program.ancestors().skip(1).take(2);
        let home = nearby.filter(|directory| SIGNS.iter().any(|sign| directory.join(sign).exists()));
        for place in home.chain([program]) {
            if self.0.len() < MAX_HOMES {
                self.0.insert(place.to_owned(), platform.to_owned());
            }
        }
    }

    /// The platform of the runner that a file is part of.
    pub(super) fn platform_of(&self, path: &[u8]) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let path = Path::new(OsStr::from_bytes(path));
        if let Some(platform) = self.0.get(path) {
            return Some(platform);
        }
        let (home, platform) =
            path.ancestors().skip(1).find_map(|directory| self.0.get_key_value(directory))?;
        let below = path.strip_prefix(home).ok()?;
        let mut parts = below.iter();
        let first = parts.next()?.to_str()?;
        let is_direct = parts.next().is_none();
        let is_own = if is_direct { is_part(first) } else { OWN.contains(&first) };
        is_own.then_some(platform)
    }
}

/// Of the files beside the sign: logs and the like change all the time.
fn is_part(name: &str) -> bool {
    let registration = runners::registration(format!("/{name}").as_bytes()).is_some();
    let script = [".sh", ".py", ".env", ".path", ".credentials", ".service", ".cfg"];
    registration || script.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runners_own_files_are_told_from_its_jobs() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("runner");
        std::fs::create_dir_all(home.join("bin")).unwrap();
        std::fs::write(home.join(".runner"), "{}").unwrap();
        let mut homes = RunnerHomes::default();
        homes.add(home.join("bin/Runner.Worker").as_os_str().as_bytes(), "github-actions");
        homes.add(b"/usr/local/bin/act", "act");
        let platform = |path: &Path| homes.platform_of(path.as_os_str().as_bytes());
        for own in [".runner", ".credentials", "run.sh", "bin/Runner.Worker", "externals/node20/bin/node"] {
            assert_eq!(platform(&home.join(own)), Some("github-actions"), "{own}");
        }
        for other in ["_work/a/a/run.sh", "_diag/x.log", "notes.txt"] {
            assert_eq!(platform(&home.join(other)), None, "{other}");
        }
        assert_eq!(platform(Path::new("/usr/local/bin/act")), Some("act"));
        assert_eq!(platform(Path::new("/usr/local/bin/other")), None);
    }
}
